"""The authors' data: a complete folder becomes a world, whatever is missing is named."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from absl import flags as absl_flags

from opom_jax import laboratory
from opom_jax.cli import convert
from opom_jax.data.lists import LIST_FORMATS
from opom_jax.errors import InputError
from opom_jax.networks.recognizer import ZOO
from opom_jax.networks.registry import NETWORKS
from opom_jax.tables import paper

PEOPLE, OTHERS = 2, 3


@pytest.fixture(params=paper.DATASETS)
def dataset(request, monkeypatch) -> str:
    """The name of a data set that is complete with few people."""
    small = paper.DATASETS[request.param]._replace(people=PEOPLE, others=OTHERS)
    monkeypatch.setitem(paper.DATASETS, request.param, small)
    return request.param


@pytest.fixture
def folder(dataset, draw, tmp_path) -> Path:
    """All of a data set's files; person p's photo k has the shade 20 p + k, the distractors 101,
    102 and 103, and another one behind them 104."""
    data = paper.DATASETS[dataset]
    ends = data.train, data.train + data.test
    for name, numbers in (
        (data.train_list, range(ends[0])),
        (data.test_list, range(*ends)),
    ):
        paths = [f"photos/p{p}/{k}.png" for p in range(PEOPLE) for k in numbers]
        (tmp_path / name).write_text("\n".join(paths) + "\n")
        for k, path in enumerate(paths):
            p, place = divmod(k, len(numbers))
            draw(tmp_path / path, 20 * p + numbers[place])
    others = [f"lfw_112x112/n{k}/1.png" for k in range(OTHERS + 1)]
    for k, path in enumerate(others):
        draw(tmp_path / path, 101 + k)
    if data.distractors_format == "megaface":
        lines = [f"{k} {path} 1\n" for k, path in enumerate(others)]
        (tmp_path / data.distractors).write_text("".join(lines))
    for name in paper.CONVERTED:
        shutil.copytree(ZOO / name, tmp_path / "nets" / name)
    return tmp_path


def test_a_complete_folder_is_a_world(folder, dataset):
    assert paper.missing(folder, dataset) == []
    world, data = paper.world(folder, dataset), paper.DATASETS[dataset]
    assert world.name == dataset
    assert world.photos.train.shape == (PEOPLE, data.train, 112, 112, 3)
    assert world.photos.counts == (data.test,) * PEOPLE
    own = np.arange(data.train, data.train + data.test)
    np.testing.assert_array_equal(world.photos.probes[:, 0, 0, 0], [*own, *(20 + own)])
    np.testing.assert_array_equal(world.photos.train[1, :, 0, 0, 0], 20 + np.arange(data.train))
    np.testing.assert_array_equal(world.photos.distractors[:, 0, 0, 0], [101, 102, 103])
    assert list(world.surrogates) == list(laboratory.SURROGATES)
    assert list(world.targets) == list(laboratory.TARGETS)
    assert world.surrogates["ArcFace"].name == "surrogate_arcface"
    assert world.targets["Inception-ResNet"].name == "target_inception_resnet"


def test_some_of_the_people(folder, dataset, monkeypatch):
    monkeypatch.setattr(paper, "_networks", lambda *_: {})
    photos = paper.world(folder, dataset, limit=1).photos
    assert len(photos.train) == len(photos.counts) == 1 and len(photos.distractors) == OTHERS


def test_an_empty_folder_lacks_everything(dataset, tmp_path):
    found, data = paper.missing(tmp_path, dataset), paper.DATASETS[dataset]
    names = [data.train_list, data.test_list, data.distractors]
    names += [f"nets/{name}" for name in paper.CONVERTED]
    for name, sentence in zip(names, found, strict=True):
        assert repr(str(tmp_path / name)) in sentence and paper.DRIVE in sentence
        assert sentence.endswith(".") and "\n" not in sentence
    with pytest.raises(InputError, match="is not complete") as caught:
        paper.world(tmp_path, dataset)
    assert str(caught.value).splitlines()[1:] == found


def _no_photo(folder: Path, data: paper.Dataset) -> list[str]:
    (folder / "photos/p1/2.png").unlink()
    return [data.train_list, "line 13", "photos/p1/2.png", "unpack Privacy"]


def _short_list(folder: Path, data: paper.Dataset) -> list[str]:
    path = folder / data.test_list
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    wanted = PEOPLE * data.test
    return [data.test_list, f"has {wanted - 1} photos of {wanted}", "unpack Privacy"]


def _no_others(folder: Path, data: paper.Dataset) -> list[str]:
    shutil.rmtree(folder / "lfw_112x112")
    return [data.distractors, data.distractors_source]


def _no_network(folder: Path, data: paper.Dataset) -> list[str]:
    (folder / "nets/target_sface/card.json").unlink()
    return [
        str(folder / "nets/target_sface"),
        "r50_webface_sFace/model_s64a80tb87c80d12-0071.params",
        paper.MODELS,
    ]


@pytest.mark.parametrize("damage", [_no_photo, _short_list, _no_others, _no_network])
def test_the_one_thing_that_is_missing_is_named(folder, dataset, damage):
    named = damage(folder, paper.DATASETS[dataset])
    (sentence,) = paper.missing(folder, dataset)
    assert all(part in sentence for part in named), sentence
    with pytest.raises(InputError) as caught:
        paper.world(folder, dataset)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", paper.CONVERTED)
def test_commands_are_those_of_the_convert_verb(name, tmp_path):
    sentence = next(s for s in paper.missing(tmp_path, "commons") if f"nets/{name}'" in s)
    verb, *given = shlex.split(sentence.split("`")[1])
    flags = absl_flags.FlagValues()
    assert verb == "convert" and convert.define(flags, ["convert", *given]) == []
    assert Path(flags.out) == tmp_path / "nets" / name
    whole = flags.symbol is not None
    assert whole == name.startswith("target") and (whole or flags.network in NETWORKS)


def test_names_of_networks_and_tables():
    packaged = {**laboratory.SURROGATES, **{f"of {k}": v for k, v in laboratory.TARGETS.items()}}
    assert {f"zoo:{name}" for name in paper.CONVERTED} == set(packaged.values())
    assert set(paper.OF_TABLE.values()) == set(paper.DATASETS)
    assert all(data.distractors_format in LIST_FORMATS for data in paper.DATASETS.values())
    tests = {n: d.people * d.test * (d.test - 1) for n, d in paper.DATASETS.items()}
    assert tests == {"commons": 10_000, "celebrities": 45_000}  # 4.1.1
