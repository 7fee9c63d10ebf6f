"""When GD-UAP checks its mask, halves its noise and keeps a mask."""

import jax.numpy as jnp
import numpy as np
import pytest

from opom_jax.baselines.checks import PATIENCE, Checks, begin, check


def known(noise, **changes) -> Checks:
    begun = begin(jnp.asarray(noise, jnp.float32))
    given = {k: jnp.asarray(v, getattr(begun, k).dtype) for k, v in changes.items()}
    return begun._replace(**given)


FULL = np.array([[[9.0, -8.0, 1.0]]])  # two thirds at +-8


@pytest.mark.parametrize(
    "noise, changes, count, last, resting, checked",
    [
        (FULL, {"saturation": 2 / 3}, 7, False, True, False),  # at rest too soon after a check
        (FULL, {"saturation": 2 / 3, "checked": 6}, 207, False, True, True),
        (FULL, {"saturation": 0.6}, 207, False, False, False),  # still growing
        (FULL / 9, {"saturation": 0.0}, 207, False, False, False),  # below a half
        (FULL, {"saturation": 0.6}, 400, False, False, True),
        (FULL, {"saturation": 0.6}, 3, True, False, True),
    ],
)
def test_when_it_checks_and_halves(noise, changes, count, last, resting, checked):
    before = known(noise, **changes)
    found, rests = check(before, noise, 8.0, 5.0, 0.3, count, last)
    assert bool(rests) == resting
    assert bool(found.distance == np.float32(0.3)) == checked
    assert int(found.checked) == (count if checked or resting else before.checked)
    if checked:
        np.testing.assert_array_equal(found.best, np.clip(noise, -8, 8))
        assert found.objective == 5


def test_a_worse_check_counts_and_changes_no_mask():
    before = known(FULL, failed=4, distance=0.5, best=FULL / 3)
    found, _ = check(before, FULL, 8.0, 5.0, 0.3, 400, False)
    assert int(found.failed) == 5 and found.distance == 0.5
    np.testing.assert_allclose(found.best, FULL / 3, rtol=1e-6)
    better, _ = check(before, FULL, 8.0, 5.0, 0.6, 400, False)
    assert int(better.failed) == 0 and better.distance == np.float32(0.6)


def test_patience_ends_a_run():
    assert not known(FULL, failed=PATIENCE - 1).ended and known(FULL, failed=PATIENCE).ended
