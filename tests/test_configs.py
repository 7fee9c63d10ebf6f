"""Every experiment of configs/ loads, and names only keys that there are."""

import sys
import warnings
from pathlib import Path

import pytest
from absl import flags as absl_flags

from opom_jax.cli import config as options
from opom_jax.cli import train as training

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
OF_TRAIN = {"train_folder", "zoo:target_senet"}
NAMES = sorted({path.stem for path in CONFIGS.glob("*.py")} - {"zoo"} | OF_TRAIN)


def load(name: str):
    sys.modules.pop("config_config", None)  # ml_collections loads every file under this name
    stem, _, argument = name.partition(":")
    given = f"--config={CONFIGS / stem}.py" + (f":{argument}" if argument else "")
    verb = training if name in OF_TRAIN else options
    flags = absl_flags.FlagValues()
    with warnings.catch_warnings():  # as ml_collections loads files
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
        options.define(flags, ["opom-jax", given], "", verb.get_config)
    return flags.config


@pytest.mark.parametrize("name", NAMES)
def test_loads(name):
    config = load(name)
    if name not in OF_TRAIN:
        options.settings(config)


@pytest.mark.parametrize(
    "name, train, test, counts, distractors",
    [
        (
            "privacy_commons",
            "data/privacy_train_v3_10.lst",
            "data/privacy_test_v3_5.lst",
            (10, 5),
            ("data/common_distractor.lst", "megaface"),
        ),
        (
            "privacy_celebrities",
            "data/privacy_ms90w_train.lst",
            "data/privacy_ms90w_test.lst",
            (10, 10),
            ("data/lfw_112x112", "path"),
        ),
    ],
)
def test_names_of_the_authors_files(name, train, test, counts, distractors):
    data = load(name).data
    assert (data.root, data.list_format) == ("data", "path")
    assert (data.train_list, data.test_list) == (train, test)
    assert (data.train_per_person, data.test_per_person) == counts
    assert (data.distractors, data.distractors_format) == distractors
