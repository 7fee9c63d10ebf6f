"""How many people a device takes at once."""

import jax
import pytest

from opom_jax import parallel
from opom_jax.errors import InputError
from opom_jax.masks import memory
from opom_jax.masks.memory import MOST, bytes_per_person, evenly, fitting, people_that_fit
from tests.tiny import SIZE, Small, random_network


@pytest.fixture(scope="module")
def network():
    with pytest.MonkeyPatch.context() as patch:
        yield random_network(patch, Small)


@pytest.mark.parametrize("wanted, fit", [(0.5, 1), (1, 1), (7.9, 7), (1000, MOST)])
def test_people_that_fit(network, monkeypatch, wanted, fit):
    budget = wanted * bytes_per_person(network, 4, SIZE)
    assert people_that_fit(network, 4, SIZE, budget / memory.GIB) == fit
    monkeypatch.setattr(memory, "_free_bytes", lambda device: budget)
    assert people_that_fit(network, 4, SIZE) == fit


def test_the_tightest_device_decides(network, monkeypatch):
    each = bytes_per_person(network, 4, SIZE)
    free = dict(zip(jax.local_devices(), (9, 3, 8, 5), strict=True))
    monkeypatch.setattr(memory, "_free_bytes", lambda device: free[device] * each)
    assert people_that_fit(network, 4, SIZE) == 3


@pytest.mark.parametrize("people", [0, 1, 5, 31, 32, 33, 56, 500, 100_001])
@pytest.mark.parametrize("most", [1, 4, 15, MOST])
def test_even_batches(people, most):
    size = evenly(people, most)
    assert 1 <= size <= most
    batches = -(-people // size)
    assert batches == -(-people // most)  # no more than needed
    assert batches * size - people < max(1, batches)  # less than one row of each is padding


@pytest.mark.parametrize("devices, rounds", [(1, 16), (8, 2), (16, 1)])
def test_five_hundred_people_keep_every_accelerator_busy(monkeypatch, devices, rounds):
    monkeypatch.setattr(jax, "local_device_count", lambda: devices)
    size = evenly(500, MOST)
    used = parallel.devices_for(500, size)
    assert used == devices and -(-500 // (used * size)) == rounds
    assert rounds * used * size <= 1.03 * 500


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 350 GiB"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
    ],
)
def test_too_many_are_one_sentence(error):
    with pytest.raises(InputError) as caught, fitting(7, "take fewer"):
        raise error
    said = str(caught.value)
    assert said.startswith("7 people at once do not fit into memory (") and "\n" not in said
    assert said.endswith("; take fewer.")


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("INTERNAL: broken"), OSError("disk")])
def test_other_errors_pass(error):
    with pytest.raises(type(error), match=str(error)), fitting(7, "take fewer"):
        raise error
