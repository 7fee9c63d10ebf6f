"""The paper's Privacy-Celebrities (4.1): 500 people, 10 training and 10 test images, LFW's 13,233
photos as distractors.

Unpack the authors' download in `data/`, so that its lists are there, with LFW, aligned, in
`data/lfw_112x112/`, and put the surrogate and the targets, converted, in `data/nets/`
(opom_jax/tables/paper.py has every name):

    python run.py generate --config=configs/privacy_celebrities.py --workdir=runs/celebrities \\
        --config.surrogate=data/nets/surrogate_softmax
    python run.py evaluate --config=configs/privacy_celebrities.py --workdir=runs/celebrities \\
        --config.targets=data/nets/target_arcface,data/nets/target_cosface

45,000 tests a target. Not run here: neither the images nor the networks are public downloads that
a program can fetch. Expect the ConvexHull rows of the paper's Table 3.
"""

from opom_jax.cli.config import get_config as defaults
from opom_jax.tables import paper


def get_config():
    """The published lists, below data/."""
    config = defaults()
    config.data.update(paper.lists("data", "celebrities"))
    config.data.update(paper.distractors("data", "celebrities"))
    return config
