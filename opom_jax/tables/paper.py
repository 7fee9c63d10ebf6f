"""The authors' data: what the paper's Tables 2 to 6 need below one folder, and where it comes from.

DATA/privacy_train_v3_10.lst, ...   lists, and the photos of 112 x 112 that they name
DATA/lfw_112x112/                   LFW, the other people of Tables 3 and 5
DATA/nets/surrogate_softmax/, ...   networks, converted, named as those of the package

The names of the authors' files are those in the scripts of the published code, which also say that
`common_distractor.lst` has its paths in the second column, as MegaFace's lists do.
"""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

from opom_jax.data.people import flat_images, from_lists
from opom_jax.errors import InputError
from opom_jax.laboratory import SURROGATES, TARGETS
from opom_jax.tables import worlds

DRIVE = "https://drive.google.com/file/d"
MODELS = f"{DRIVE}/1XmHD2mTcc6SHutCVPVw7cVg5jGkGIIUU/view"


class Dataset(NamedTuple):
    """A data set of the paper (4.1.1).

    Attributes:
      source: the sentence's end that says where its photos and lists come from.
      train_list, test_list: one path a line, the photos of a person consecutive.
      train, test: photos of a person in each.
      distractors: a list, or a folder with all of them.
      distractors_source: as `source`.
      others: distractors, at least; the first ones count.
      distractors_format: of the list.
      people: number of them.
    """

    source: str
    train_list: str
    test_list: str
    train: int
    test: int
    distractors: str
    distractors_source: str
    others: int
    distractors_format: str = "path"
    people: int = 500


_COMMONS = f"unpack Privacy-Commons ({DRIVE}/1NLKVDA-PRNJECtad5qcoDKsL4f1eWJNQ/view) there"
_CELEBRITIES = f"unpack Privacy-Celebrities ({DRIVE}/1AGkA2S9-9zTPue8wZo0kuJ9-B9RAnaP7/view) there"
DATASETS = {
    "commons": Dataset(
        source=_COMMONS,
        train_list="privacy_train_v3_10.lst",
        test_list="privacy_test_v3_5.lst",
        train=10,
        test=5,
        distractors="common_distractor.lst",
        distractors_source=_COMMONS,
        others=10_000,
        distractors_format="megaface",
    ),
    "celebrities": Dataset(
        source=_CELEBRITIES,
        train_list="privacy_ms90w_train.lst",
        test_list="privacy_ms90w_test.lst",
        train=10,
        test=10,
        distractors="lfw_112x112",
        distractors_source=f"{_CELEBRITIES}, or all of LFW, aligned",
        others=13_233,
    ),
}
OF_TABLE = {2: "commons", 3: "celebrities", 4: "commons", 5: "celebrities", 6: "commons"}


def _surrogate(file: str) -> tuple[str, ...]:
    return "--network=ir_50", f"--weights=models/surrogate/{file}_checkpoint.pth"


def _target(prefix: str, epoch: int) -> tuple[str, ...]:
    """The symbol file states the whole network, its scaling too; the embedding is node fc1."""
    path = f"models/target/{prefix}"
    return f"--symbol={path}-symbol.json", f"--weights={path}-{epoch:04d}.params", "--output=fc1"


# folder in DATA/nets -> flags of `convert` on the authors' files
CONVERTED = {
    "surrogate_softmax": _surrogate(
        "IR_50-Softmax-casia/Backbone_IR_50_Epoch_94_Batch_180000_Time_2020-03-30-01-55"
    ),
    "surrogate_cosface": _surrogate(
        "IR_50-CosFace-casia/Backbone_IR_50_Epoch_74_Batch_140000_Time_2020-05-27-21-38"
    ),
    "surrogate_arcface": _surrogate(
        "IR_50-ArcFace-casia/Backbone_IR_50_Epoch_73_Batch_138000_Time_2020-05-07-23-48"
    ),
    "target_arcface": _target("r50_webface_arc_bs/model", 146),
    "target_cosface": _target("r50_webface_cos_bs/model", 82),
    "target_sface": _target("r50_webface_sFace/model_s64a80tb87c80d12", 71),
    "target_mobilenet": _target("m1_webface_soft/model", 51),
    "target_senet": _target("ser50_webface_soft/model", 25),
    "target_inception_resnet": _target("i1_webface_soft/model_s3", 21),
}


def lists(folder: Path | str, dataset: str) -> dict[str, Any]:
    """Arguments of `people.from_lists`, which are keys of `config.data` too."""
    data, folder = DATASETS[dataset], Path(folder)
    return {
        "root": str(folder),
        "train_list": str(folder / data.train_list),
        "train_per_person": data.train,
        "test_list": str(folder / data.test_list),
        "test_per_person": data.test,
    }


def distractors(folder: Path | str, dataset: str) -> dict[str, str]:
    """Keys of `config.data` for the other people of the gallery."""
    data = DATASETS[dataset]
    where = str(Path(folder, data.distractors))
    return {"distractors": where, "distractors_format": data.distractors_format}


def check(folder: Path | str, dataset: str) -> None:
    """Raises InputError with all that a data set lacks, a sentence a line as in `missing`."""
    if lacking := missing(Path(folder), dataset):
        raise InputError(f"{str(folder)!r} is not complete:\n" + "\n".join(lacking))


def world(folder: Path | str, dataset: str, limit: int = 0) -> worlds.World:
    """The people, distractors and networks of a data set.

    Args:
      folder: DATA.
      dataset: a name of `DATASETS`.
      limit: people to take, the first ones; 0 for all.

    Raises:
      InputError: as `check`; a file that cannot be read.
    """
    check(folder, dataset)
    folder, data = Path(folder), DATASETS[dataset]
    others = flat_images(folder / data.distractors, folder, data.distractors_format)
    return worlds.on_disk(
        dataset,
        from_lists(**lists(folder, dataset), limit=limit),
        others[: data.others],
        _networks(folder, SURROGATES),
        _networks(folder, TARGETS),
    )


def _networks(folder: Path, packaged: dict[str, str]) -> dict[str, str]:
    """Name in the tables -> folder."""
    return {name: str(folder / "nets" / of.removeprefix("zoo:")) for name, of in packaged.items()}


def missing(folder: Path, dataset: str) -> list[str]:
    """What a data set lacks in a folder: a sentence for each list or folder of photos (with the
    first one that is not there) and for each network; nothing if all is there."""
    data = DATASETS[dataset]
    photos = [
        _missing_photos(folder, data.train_list, data.people * data.train, data.source),
        _missing_photos(folder, data.test_list, data.people * data.test, data.source),
        _missing_photos(
            folder, data.distractors, data.others, data.distractors_source, data.distractors_format
        ),
    ]
    networks = [_missing_network(folder / "nets" / name, name) for name in CONVERTED]
    return [sentence for sentence in (*photos, *networks) if sentence]


def _missing_photos(
    folder: Path, name: str, wanted: int, source: str, list_format: str = "path"
) -> str:
    try:
        found = len(flat_images(folder / name, folder, list_format))
    except InputError as error:
        return f"{str(error).rpartition('; ')[0]}; {source}."  # its own mend is for anybody's list
    if found < wanted:
        return f"{str(folder / name)!r} has {found} photos of {wanted}; {source}."
    return ""


def _missing_network(folder: Path, name: str) -> str:
    if (folder / "card.json").is_file():
        return ""
    command = shlex.join(["convert", *CONVERTED[name], f"--out={folder}"])
    return f"{str(folder)!r} is no network; `{command}` makes it of the authors' models ({MODELS})."
