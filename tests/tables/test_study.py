"""Studies: masks whatever the parts, counts by nested loops, everything made once."""

import dataclasses

import jax
import numpy as np
import pytest

from opom_jax import laboratory
from opom_jax.baselines import specific
from opom_jax.baselines.settings import Settings as BaselineSettings
from opom_jax.errors import InputError
from opom_jax.masks.apply import apply_mask
from opom_jax.masks.generate import Settings
from opom_jax.methods import METHODS
from opom_jax.tables import study as studies
from opom_jax.tables.kept import hashed
from opom_jax.tables.study import Masks, Study
from tests.tiny import Small, random_network

BRIEF = Settings(method="fi_uap", steps=2)
OWN = dataclasses.replace(BRIEF, start="person")
FIM = dataclasses.replace(specific.METHODS["fim"], steps=2)
UNIVERSAL = BaselineSettings(method="fi_uap_all", steps=2)
SETS = {
    "masks": Masks("A", BRIEF),
    "diverse": Masks("A", BRIEF, diverse=3),
    "universal": Masks("A", UNIVERSAL),
    "image-specific": Masks("A", "fim"),
    "random": Masks("", 7),
}


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Files of two people, so that the last has one, and an attack of two steps."""
    monkeypatch.setattr(studies, "PEOPLE", 2)
    monkeypatch.setitem(specific.METHODS, "fim", FIM)


@pytest.fixture
def fresh(tiny, tmp_path) -> Study:
    return Study(tiny, tmp_path)


@pytest.fixture(scope="module")
def shared(tiny, tmp_path_factory) -> Study:
    return Study(tiny, tmp_path_factory.mktemp("shared"))


def forbid(monkeypatch) -> None:
    """Whatever computes masks, features or ranks fails from now on."""
    computing = (
        *((laboratory, name) for name in ("make_masks", "clean_features")),
        *((studies, name) for name in ("make_diverse", "extractor", "ranks")),
        (specific, "image_masks"),
    )

    def again(*_, **__):
        pytest.fail("made again")

    for what, name in computing:
        monkeypatch.setattr(what, name, again)
    for name, method in METHODS.items():
        monkeypatch.setitem(METHODS, name, method._replace(make=again))


def files(study: Study) -> dict[str, bytes]:
    paths = (path for path in study.folder.rglob("*") if path.is_file())
    return {str(path.relative_to(study.folder)): path.read_bytes() for path in paths}


# Masks.


@pytest.mark.parametrize("settings", [BRIEF, OWN, BaselineSettings("gd_uap", iterations=2)])
def test_masks_are_those_of_all_people_at_once(fresh, settings):
    train = fresh.world.photos.train
    together = laboratory.make_masks(fresh.world.surrogates["A"], settings, train)
    made = fresh.masks(Masks("A", settings))
    np.testing.assert_allclose(made, together, atol=1e-4)
    assert made.shape == (5, 16, 16, 3) and 0 < np.abs(made).max() <= 8
    assert len(list((fresh.folder / "masks").iterdir())) == 3
    assert np.abs(made - laboratory.make_masks(fresh.world.surrogates["B"], settings, train)).max()


@pytest.mark.parametrize("together", [1, 4, 100])
def test_diverse_masks_do_not_depend_on_the_batch(fresh, shared, monkeypatch, together):
    masks = Masks("A", OWN, diverse=3)
    expected = shared.masks(masks)
    assert expected.shape == (5, 3, 16, 16, 3)
    assert (np.abs(expected[:, 0] - expected[:, 1]).max((1, 2, 3)) > 1).all()
    monkeypatch.setattr(studies, "people_that_fit", lambda *_: together)
    monkeypatch.setattr(studies, "PEOPLE", 4)
    np.testing.assert_allclose(fresh.masks(masks), expected, atol=1e-4)


def test_batches_are_alike(fresh, monkeypatch):
    """Of five people four fit: three and two, which pads one place and not three."""
    sizes, make = [], laboratory.make_masks

    def recorded(network, settings, train, size, **options):
        sizes.append(size)
        return make(network, settings, train, size, **options)

    monkeypatch.setattr(laboratory, "make_masks", recorded)
    monkeypatch.setattr(studies, "people_that_fit", lambda *_: 4)
    monkeypatch.setattr(studies, "PEOPLE", 20)
    fresh.masks(SETS["masks"])
    assert sizes == [3]


def test_memory_that_is_too_small(fresh, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(laboratory, "make_masks", full)
    with pytest.raises(InputError, match="do not fit into memory .*lower --memory_gib"):
        fresh.masks(Masks("A", BRIEF))


def test_a_network_with_nothing_to_drop(fresh, monkeypatch):
    """Is found before masks are made."""

    class Without(Small):
        spared = ("conv",)

    forbid(monkeypatch)
    network = random_network(monkeypatch, Without)
    study = fresh.of(fresh.world._replace(surrogates={"A": network}))
    study.check(Masks("A", BRIEF))
    with pytest.raises(InputError, match="no layer that dropout reaches"):
        study.check(Masks("A", dataclasses.replace(BRIEF, dropout=0.1)))


def test_a_mask_for_everybody_is_stored_once(fresh):
    made = fresh.masks(SETS["universal"])
    assert made.shape == (5, 16, 16, 3) and (made == made[0]).all()
    (path,) = (fresh.folder / "masks").iterdir()
    assert np.load(path).shape == (16, 16, 3)
    assert {path.name for path in fresh.folder.iterdir()} == {"masks", "ranks"}


def test_an_interrupted_mask_for_everybody_goes_on_where_it_stopped(fresh, monkeypatch):
    folders = []

    def interrupted(network, settings, people, size, folder):
        folders.append(folder)
        (folder / "checkpoint").touch()
        raise KeyboardInterrupt

    def finished(network, settings, people, size, folder):
        assert [folder] == folders and (folder / "checkpoint").exists()
        return METHODS["fi_uap_all"].make(network, UNIVERSAL, people, size)

    gap = Masks("A", BaselineSettings(method="gap"))
    monkeypatch.setitem(METHODS, "gap", METHODS["gap"]._replace(make=interrupted))
    with pytest.raises(KeyboardInterrupt):
        fresh.masks(gap)
    assert folders[0].exists() and not any((fresh.folder / "masks").iterdir())
    monkeypatch.setitem(METHODS, "gap", METHODS["gap"]._replace(make=finished))
    assert np.abs(fresh.masks(gap)).max() > 0 and not folders[0].exists()


def test_a_mask_for_every_probe(shared):
    probes = shared.world.photos.probes
    made = specific.image_masks([shared.world.surrogates["A"]], FIM, probes)
    masked = apply_mask(probes, made)
    np.testing.assert_array_equal(shared.masked(SETS["image-specific"]), masked)
    assert len(shared.masks(SETS["image-specific"])) == sum(shared.world.photos.counts)


def test_random_signs(shared):
    made = shared.masks(SETS["random"])
    np.testing.assert_array_equal(made, laboratory.random_masks(5, 16, seed=7))
    assert (shared.masks(Masks("", 8)) != made).any()


def test_every_probe_wears_the_mask_of_its_person(shared):
    photos, made = shared.world.photos, shared.masks(SETS["diverse"])
    masked = shared.masked(SETS["diverse"])
    assert masked.shape == (3, 12, 16, 16, 3) and masked.dtype == np.uint8
    for probe, person in enumerate(np.repeat(range(5), photos.counts)):
        for m in range(3):
            alone = apply_mask(photos.probes[probe], made[person, m])
            np.testing.assert_array_equal(masked[m, probe], alone)


# Ranks.


def unit(study: Study, target: str, pictures: np.ndarray) -> np.ndarray:
    """Unit features f64[B,D], computed at one go."""
    network = study.world.targets[target]
    found = np.asarray(jax.jit(network.embed)(network.params, pictures.astype(np.float32)))
    return found / np.linalg.norm(found.astype(np.float64), axis=1, keepdims=True)


def by_hand(study: Study, target: str, probes: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The protocol in nested loops: pictures u8[B,H,W,C] twice -> i64[P,4]."""
    photos = study.world.photos
    probes, gallery, others = (
        unit(study, target, p) for p in (probes, gallery, photos.distractors)
    )
    counts, start = np.zeros((len(photos.counts), 4), int), 0
    for person, n in enumerate(photos.counts):
        for i in range(start, start + n):
            for j in range(start, start + n):
                if i != j:
                    rank = sum(other @ probes[i] > gallery[j] @ probes[i] for other in others)
                    counts[person] += [1, rank < 1, rank < 5, rank < 10]
        start += n
    return counts


@pytest.mark.parametrize("name", [None, "masks", "universal", "random"])
def test_counts_are_those_of_the_laboratory(shared, tmp_path, name):
    world, masks = shared.world, SETS[name] if name else None
    made = [shared.masks(masks)] if masks else []
    clean = laboratory.clean_features(world.targets["C"], world.photos, tmp_path)
    *_, expected = laboratory.identify(world.targets["C"], world.photos, clean, made)
    found = shared.found(masks, "C")
    np.testing.assert_array_equal(found, expected.per_person())
    pictures = shared.masked(masks) if masks else world.photos.probes
    np.testing.assert_array_equal(found, by_hand(shared, "C", pictures, world.photos.probes))


def test_counts_of_a_mask_for_every_probe(shared):
    masks, probes = SETS["image-specific"], shared.world.photos.probes
    expected = by_hand(shared, "D", shared.masked(masks), probes)
    np.testing.assert_array_equal(shared.found(masks, "D"), expected)
    assert (expected != shared.found(None, "D")).any()


@pytest.mark.parametrize("count", [1, 3])
def test_counts_among_masked_photos(shared, count):
    """With three masks the photo that is looked for has the next one, with one the same."""
    masks, probes = Masks("A", BRIEF, diverse=count), shared.world.photos.probes
    found, masked = shared.found_among_masked(masks, "C"), shared.masked(masks)
    assert found.shape == (2, count, 5, 4)
    for m in range(count):
        clean, other = by_hand(shared, "C", masked[m], probes), masked[(m + 1) % count]
        np.testing.assert_array_equal(found[0, m], clean)
        np.testing.assert_array_equal(found[1, m], by_hand(shared, "C", masked[m], other))
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize("name", [None, "masks"])
def test_pairs_of_one_person_and_of_strangers(shared, name):
    photos, masks = shared.world.photos, SETS[name] if name else None
    clean, others = (unit(shared, "C", p) for p in (photos.probes, photos.distractors))
    probes = unit(shared, "C", shared.masked(masks)) if masks else clean
    person = np.repeat(range(5), photos.counts)
    same = [
        probes[i] @ clean[j]
        for i in range(12)
        for j in range(12)
        if i != j and person[i] == person[j]
    ]
    found = shared.pairs(masks, "C")
    np.testing.assert_allclose(found[0], same, atol=1e-6)
    np.testing.assert_allclose(found[1], [p @ o for p in probes for o in others], atol=1e-6)
    assert found[0].dtype == found[1].dtype == np.float64


def test_white_boxes_are_known_by_their_weights(shared):
    known = [(s, t) for s in ("", "A", "B") for t in "ACD" if shared.is_white_box(s, t)]
    assert known == [("A", "A")]
    renamed = shared.world._replace(targets={"X": shared.world.surrogates["B"]})
    assert shared.of(renamed).is_white_box("B", "X")


# Made once.


def everything(study: Study) -> list[np.ndarray]:
    found = [study.masks(masks) for masks in SETS.values()]
    found += [study.found(SETS[name], "C") for name in ("masks", "image-specific", "random")]
    found += [study.found(None, "C"), study.found_among_masked(SETS["diverse"], "C")]
    return [*found, *study.pairs(SETS["masks"], "C")]


def test_nothing_is_made_twice(shared, monkeypatch):
    first, before, said = everything(shared), files(shared), []
    forbid(monkeypatch)
    again = everything(Study(shared.world, shared.folder, said.append))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
        assert one.dtype == two.dtype
    assert said == [] and files(shared) == before


def test_what_is_made_is_said(fresh):
    said = []
    Study(fresh.world, fresh.folder, said.append).found(SETS["masks"], "C")
    numbers = [f"masks of fi_uap by A, people {first} and on" for first in (1, 3, 5)]
    assert said == [*numbers, "C looks at masked photos"]


# What decides the content of a file decides its name.

CHANGES = {
    "seed": {"settings": dataclasses.replace(BRIEF, seed=1)},
    "steps": {"settings": dataclasses.replace(BRIEF, steps=1)},
    "method": {"settings": BaselineSettings("gd_uap", steps=2)},
    "surrogate": {"surrogate": "B"},
    "diverse": {"diverse": 1},
    "attack": {"settings": "fim"},
}
"""Of a set of masks."""


def preprocessed(network):
    return network._replace(spec=dataclasses.replace(network.spec, mean=(1.0, 1.0, 1.0)))


def edited(pictures: np.ndarray) -> np.ndarray:
    """One pixel is another."""
    changed = pictures.copy()
    changed.flat[-1] ^= 1
    return changed


def with_photos(world, **changes):
    return world._replace(photos=world.photos._replace(**changes))


DECIDE_MASKS = {
    "a photo": lambda w: with_photos(w, train=edited(w.photos.train)),
    "whose photos": lambda w: with_photos(w, train=w.photos.train.reshape(3, 5, 16, 16, 3)),
    "weights of the surrogate": lambda w: w._replace(surrogates={"A": w.surrogates["B"]}),
    "preprocessing of the surrogate": lambda w: w._replace(
        surrogates={"A": preprocessed(w.surrogates["A"])}
    ),
}
DECIDE_RANKS = {
    "a probe": lambda w: with_photos(w, probes=edited(w.photos.probes)),
    "a distractor": lambda w: with_photos(w, distractors=edited(w.photos.distractors)),
    "whose probes": lambda w: with_photos(w, counts=(2, 3, 3, 2, 2)),
    "weights of the target": lambda w: w._replace(targets={"C": w.targets["D"]}),
    "preprocessing of the target": lambda w: w._replace(
        targets={"C": preprocessed(w.targets["C"])}
    ),
}


@pytest.fixture
def names(tmp_path, monkeypatch):
    """names(world, masks) -> the names of the files of masks and of ranks."""

    def named(world, masks=SETS["masks"]) -> tuple[set[str], set[str]]:
        asked = {"masks": set(), "ranks": set()}

        def record(folder, what, key, compute):
            asked[folder.name].add(hashed(key))
            return np.zeros((1, 1), np.float32)

        monkeypatch.setattr(studies, "kept", record)
        study = Study(world, tmp_path)
        study.masks(masks)
        study.found(masks, "C")
        return asked["masks"], asked["ranks"]

    return named


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
def test_another_set_of_masks_has_files_of_its_own(tiny, names, changed):
    before, after = names(tiny), names(tiny, dataclasses.replace(SETS["masks"], **changed))
    assert names(tiny) == before
    assert [a & b for a, b in zip(before, after, strict=True)] == [set(), set()]


def test_an_attack_on_more_networks_has_files_of_its_own(tiny, names):
    one, two = (names(tiny, Masks("A", "lowkey", also=also)) for also in ((), ("B",)))
    assert not one[0] & two[0] and not one[1] & two[1]


@pytest.mark.parametrize("change", DECIDE_MASKS.values(), ids=DECIDE_MASKS)
def test_what_decides_masks(tiny, names, change):
    before, after = names(tiny), names(change(tiny))
    assert before[0] != after[0] and not before[1] & after[1]


@pytest.mark.parametrize("change", DECIDE_RANKS.values(), ids=DECIDE_RANKS)
def test_what_decides_ranks_only(tiny, names, change):
    before, after = names(tiny), names(change(tiny))
    assert before[0] == after[0] and not before[1] & after[1]


def test_what_is_asked_of_ranks_is_in_their_names(tiny, tmp_path, monkeypatch):
    asked, study, masks = [], Study(tiny, tmp_path), Masks("A", BRIEF, diverse=1)
    array = np.zeros(99, np.float32)
    monkeypatch.setattr(
        studies, "kept", lambda _, what, key, __: asked.append(hashed(key)) or array
    )
    for ask in (study.found, study.found_among_masked, study.pairs):
        ask(masks, "C")
    assert len(set(asked)) == 3


def damage(study: Study, content) -> None:
    for path in (*(study.folder / "masks").iterdir(), *(study.folder / "ranks").iterdir()):
        path.write_bytes(content(path.read_bytes()))


@pytest.mark.parametrize(
    "content",
    [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: whole[:-1] + b"?"],
    ids=["empty", "cut", "damaged"],
)
def test_damaged_files_are_made_again(fresh, content):
    first = fresh.found(SETS["masks"], "C")
    before = files(fresh)
    damage(fresh, content)
    np.testing.assert_array_equal(fresh.found(SETS["masks"], "C"), first)
    assert files(fresh) == before
