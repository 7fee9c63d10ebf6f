"""Runs of the published code, step by step and end to end (limits: benchmarks/replay.py)."""

from functools import cache

import jax
import numpy as np
import pytest

from benchmarks import replay
from opom_jax.masks import generate

SMALL = ["small fim0", "small fim2", "small fim7", "small fim8", "small fim9"]


@pytest.fixture(scope="module")
def networks(goldens):
    return cache(lambda name: replay.load(name, goldens))


def numbers(run, network):
    found = (*replay.replay(run, network), replay.end_to_end(run, network))
    return dict(zip(replay.LIMITS, found, strict=True))


def assert_within_limits(run, network):
    for name, number in numbers(run, network).items():
        assert number <= replay.LIMITS[name], f"{run.name}: {name} {number:.1e}"


@pytest.mark.parametrize("name", SMALL)
def test_small_network(goldens, networks, name):
    run = next(r for r in replay.runs(goldens / "opom_small.npz") if r.name == name)
    assert_within_limits(run, networks(run.network))


def test_a_wrong_update_is_noticed(goldens, networks):
    """The comparison can fail: half a step, or another objective, is far outside the limits."""
    run = next(r for r in replay.runs(goldens / "opom_small.npz") if r.name == "small fim9")
    other = run._replace(settings=generate.Settings(method="fi_uap", steps=3, initial_steps=1))
    found = numbers(other, networks(run.network))
    assert found["signs"] > replay.LIMITS["signs"] and found["loss"] > replay.LIMITS["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("kind, known", [("fim", {"0", "9"}), ("dfanet", {"9"})])
def test_ir_50(goldens, networks, kind, known):
    """The first person of every file that is there; some are kept back. benchmarks/replay.py takes
    everybody."""
    files = sorted(goldens.glob(f"opom_{kind}_*.npz"))
    assert {file.stem.split("_")[2] for file in files} >= known
    for file in files:
        run = next(iter(replay.runs(file)))
        assert_within_limits(run, networks(run.network))


def test_command_line_refuses_other_files(tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, a=np.zeros(1))
    with pytest.raises(SystemExit, match="not a file of the form"):
        replay.main([other])


def test_published_start_is_the_published_noise_bit_for_bit(goldens):
    stored = np.load(goldens / "opom_noise.npz")["noise"].transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(
        generate.published_noise(generate.Settings(), (10, 112, 112, 3)), stored
    )
    few = generate.published_noise(generate.Settings(), (3, 112, 112, 3))
    np.testing.assert_array_equal(few, stored[:3])


def test_own_noise_of_a_photo_depends_on_seed_person_and_place_only():
    settings = generate.Settings()
    few = generate.person_noise(settings, 3, (2, 8, 8, 3))
    many = generate.person_noise(settings, 3, (5, 8, 8, 3))
    np.testing.assert_array_equal(few, many[:2])
    assert np.abs(many).max() <= 8 and np.abs(many.mean()) < 0.5
    other = generate.person_noise(settings, 4, (2, 8, 8, 3))
    reseeded = generate.person_noise(generate.Settings(seed=1), 3, (2, 8, 8, 3))
    assert not np.array_equal(few, other) and not np.array_equal(few, reseeded)
    assert not jax.numpy.array_equal(few[0], few[1])
