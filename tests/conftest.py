"""Strict JAX for every test, and the data that several of them share."""

import gc
import json
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.recipe import weights
from opom_jax.files import cache_folder, private_folder

gc.set_threshold(50_000)  # tracing makes millions of objects and no garbage

ROOT = Path(__file__).resolve().parents[1]

_FLAGS = "--xla_force_host_platform_device_count=4 --xla_cpu_experimental_ynn_fusion_type="
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
if private_folder(cache_folder() / "xla"):
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    """Lets go of what a module compiled: the system maps only so many pieces of memory (65,530) for
    a process, of which every compiled function takes some."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real weights and faces; skips where it is absent."""
    folder = Path(os.environ.get("OPOM_REAL_DATA") or SHARED / "real")
    if not (folder / "faces_112").is_dir():
        pytest.skip("no real data: set OPOM_REAL_DATA to the folder that holds faces_112/")
    return folder


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The folder of outputs of the published code; skips where it is absent."""
    folder = SHARED / "goldens"
    if not folder.is_dir():
        pytest.skip("no goldens beside the checkout (../shared/goldens)")
    return folder


@pytest.fixture(scope="session")
def targets() -> Path:
    """The folder of the targets' layer tables; skips where it is absent."""
    folder = SHARED / "targets"
    if not folder.is_dir():
        pytest.skip("no layer tables beside the checkout (../shared/targets)")
    return folder


@pytest.fixture(scope="session")
def recipe_weights(goldens):
    """Name of a published network -> its torch state dict {name: f32 array} by the recipe."""

    def draw(name: str) -> dict[str, np.ndarray]:
        return weights(json.loads((goldens / "state_dict_keys_opom.json").read_text())[name])

    return draw
