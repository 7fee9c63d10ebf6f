"""The paper's Privacy-Commons (4.1): 500 people, 10 training and 5 test images, 10,000 distractors.

Unpack the authors' download in `data/`, so that its lists are there, and put the surrogate and the
targets, converted, in `data/nets/` (opom_jax/tables/paper.py has every name):

    python run.py generate --config=configs/privacy_commons.py --workdir=runs/commons \\
        --config.surrogate=data/nets/surrogate_softmax
    python run.py evaluate --config=configs/privacy_commons.py --workdir=runs/commons \\
        --config.targets=data/nets/target_arcface,data/nets/target_cosface

10,000 tests a target. Not run here: neither the images nor the networks are public downloads that
a program can fetch. Expect the ConvexHull rows of the paper's Table 2.
"""

from opom_jax.cli.config import get_config as defaults
from opom_jax.tables import paper


def get_config():
    """The published lists, below data/."""
    config = defaults()
    config.data.update(paper.lists("data", "commons"))
    config.data.update(paper.distractors("data", "commons"))
    return config
