"""The paper's Privacy-Commons (4.1): 500 people, 10 training and 5 test images, 10,000 distractors.

Put the data set's images and lists (the authors' download) under `data/`, the surrogate and the
targets, converted, under `nets/`:

    python run.py generate --config=configs/privacy_commons.py --workdir=runs/commons \\
        --config.surrogate=nets/softmax
    python run.py evaluate --config=configs/privacy_commons.py --workdir=runs/commons \\
        --config.targets=nets/arcface,nets/cosface

10,000 tests a target. Not run here: neither the images nor the networks are public downloads that
a program can fetch. Expect the ConvexHull rows of the paper's Table 2.
"""

from opom_jax.cli.config import get_config as defaults


def get_config():
    """The published lists, relative to data/privacy_commons."""
    config = defaults()
    config.data.root = "data/privacy_commons"
    config.data.train_list = "data/privacy_commons/privacy_train_v3_10.lst"
    config.data.train_per_person = 10
    config.data.test_list = "data/privacy_commons/privacy_test_v3_5.lst"
    config.data.test_per_person = 5
    config.data.distractors = "data/privacy_commons/common_distractor.lst"
    return config
