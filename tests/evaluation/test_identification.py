"""Ranks against a loop over tests in float64: ties, near ties, blocks, devices, files."""

import jax
import numpy as np
import pytest

from opom_jax.evaluation import identification
from opom_jax.evaluation.identification import ranks

PHOTOS = [3, 2, 5, 2]
DIMENSION = 24


def unit(features: np.ndarray) -> np.ndarray:
    return (features / np.linalg.norm(features, axis=-1, keepdims=True)).astype(np.float32)


def looped(probes, gallery, photos, distractors) -> tuple[list[int], list[int]]:
    """Ranks and people of all tests, one after the other."""
    found, people, first = [], [], 0
    for person, count in enumerate(photos):
        for i in range(first, first + count):
            for j in range(first, first + count):
                if i != j:
                    probe = probes[i].astype(np.float64)
                    target = (probe * gallery[j]).sum()
                    found.append(sum((probe * other).sum() > target for other in distractors))
                    people.append(person)
        first += count
    return found, people


def world(distractors: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probes, gallery, distractors: a third copies of the gallery, a third not quite.

    Half of the people are opposite to their photos, so that a row of zeros would be more similar.
    """
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.standard_normal((len(PHOTOS), DIMENSION)), PHOTOS, axis=0)
    gallery = unit(centres + rng.standard_normal(centres.shape))
    signs = np.repeat([1, -1, 1, -1], PHOTOS)[:, None]
    probes = unit(signs * centres + rng.standard_normal(centres.shape))
    others = rng.standard_normal((distractors, DIMENSION))
    copied = gallery[rng.integers(0, len(gallery), distractors)]
    nudged = copied + 3e-7 * rng.standard_normal(copied.shape)
    kind = np.arange(distractors)[:, None] % 3
    return probes, gallery, np.where(kind == 0, copied, unit(np.where(kind == 1, nudged, others)))


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks of probes, distractors and what is decided again, none of which divides."""
    for name, rows in (("_PROBES", 5), ("_DISTRACTORS", 4), ("_FEW", 3)):
        monkeypatch.setattr(identification, name, rows)


def assert_as_looped(probes, gallery, distractors, given=None):
    found = ranks(probes, gallery, PHOTOS, distractors if given is None else given)
    rank, person = looped(probes, gallery, PHOTOS, distractors)
    np.testing.assert_array_equal(found.rank, rank)
    np.testing.assert_array_equal(found.person, person)
    assert found.rank.dtype == found.person.dtype == np.int64


@pytest.mark.parametrize("distractors", [0, 1, 90])
def test_one_block(distractors):
    assert_as_looped(*world(distractors))


@pytest.mark.parametrize("distractors", [15, 16, 17, 61])
def test_blocks_that_do_not_divide(small_blocks, distractors):
    assert_as_looped(*world(distractors, seed=distractors))


@pytest.mark.parametrize("count", [1, 3, 4])
def test_distractors_are_spread_over_devices(small_blocks, monkeypatch, count):
    devices = jax.local_devices(backend="cpu")[:count]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    compare, used = identification._count, []

    def count_on(probes, edges, distractors):
        shares = distractors.addressable_shards
        used.append({(share.device, share.index[0].start or 0) for share in shares})
        return compare(probes, edges, distractors)

    monkeypatch.setattr(identification, "_count", count_on)
    assert_as_looped(*world(50))
    for block in used:
        assert [device for device, _ in sorted(block, key=lambda one: one[1])] == devices


def test_ties_and_near_ties_are_there():
    """The worlds above have what float32 cannot decide."""
    probes, gallery, distractors = world(90)
    single = probes @ gallery.T, probes @ distractors.T
    wrong = [
        np.count_nonzero(single[1][i] > single[0][i, j])
        for first, count in zip(np.cumsum(PHOTOS) - PHOTOS, PHOTOS, strict=True)
        for i in range(first, first + count)
        for j in range(first, first + count)
        if i != j
    ]
    assert wrong != looped(probes, gallery, PHOTOS, distractors)[0]


def test_distractors_all_like_the_targets(small_blocks):
    """Everything ties or nearly does; nobody is lost to a tie."""
    probes, gallery, _ = world(0)
    gallery[:] = gallery[0]
    same = np.repeat(gallery[:1], 40, axis=0)
    assert not ranks(probes, gallery, PHOTOS, same).rank.any()
    same[::3] = np.nextafter(same[::3], np.float32(1))
    assert_as_looped(probes, gallery, same)


@pytest.mark.parametrize("dimension", [128, 512, 2622, 4096])
def test_ties_of_features_that_are_much_alike(dimension):
    """Sums of terms of one sign, in which float32 loses most."""
    rng = np.random.default_rng(dimension)
    centre = np.abs(rng.standard_normal(dimension))
    probes, gallery = (
        unit(centre + 0.1 * rng.standard_normal((sum(PHOTOS), dimension))) for _ in range(2)
    )
    copies = gallery[rng.integers(0, len(gallery), 300)]
    assert_as_looped(probes, gallery, copies)
    single, double = (probes.astype(t) @ copies.astype(t).T for t in ("f4", "f8"))
    assert np.abs(single - double).max() < identification._rounding(dimension)


class Slices:
    """Rows that can be sliced, and nothing else."""

    def __init__(self, rows: np.ndarray):
        self.rows, self.read = rows, []

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> np.ndarray:
        assert isinstance(part, slice)
        self.read.append(part)
        return self.rows[part]


def test_distractors_are_read_once_in_blocks(small_blocks):
    probes, gallery, distractors = world(61)
    slices = Slices(distractors)
    assert_as_looped(probes, gallery, distractors, slices)
    most = identification._DISTRACTORS * len(jax.local_devices())
    assert all(part.stop - part.start <= most for part in slices.read)
    read = np.concatenate([np.arange(61)[part] for part in slices.read])
    np.testing.assert_array_equal(read, np.arange(61))


def test_distractors_in_a_file(small_blocks, tmp_path):
    probes, gallery, distractors = world(61)
    distractors.tofile(tmp_path / "features")
    shape = len(distractors), DIMENSION
    mapped = np.memmap(tmp_path / "features", np.float32, "r", shape=shape)
    assert_as_looped(probes, gallery, distractors, mapped)


@pytest.mark.parametrize("strength", ["weak", "strong"])
def test_published_ranks(goldens, strength):
    stored = np.load(goldens / "opom_eval.npz")
    probes, gallery = stored[f"{strength}_masked"], stored["clean"]
    found = ranks(probes, gallery, [5] * (len(probes) // 5), stored["distractors"])
    np.testing.assert_array_equal(found.rank, stored[f"{strength}_ranks"])
    np.testing.assert_allclose(found.protection(), 100 * stored[f"{strength}_protect"], atol=1e-10)
