"""The networks that are to come with the package, each from its own people and seed.

    python run.py train --config=configs/zoo.py:surrogate_arcface --workdir=runs/surrogate_arcface

Names: those of `NETWORKS` below. Trained on synthetic people that no study sees (numbers above a
million; studies use those below). surrogate_arcface took about 13 minutes on two CPU cores and
finds 96.4 % of unseen people among 2,000 others at once; 97 % is wanted, so the settings may still
change.
"""

import ml_collections

from opom_jax.cli.train import get_config as defaults

# name -> (network, head); the place in the table is the seed and chooses the people
NETWORKS = {
    "surrogate_softmax": ("ir_small", "softmax"),
    "surrogate_cosface": ("ir_small", "cosface"),
    "surrogate_arcface": ("ir_small", "arcface"),
    "target_arcface": ("ir_small", "arcface"),
    "target_cosface": ("ir_small", "cosface"),
    "target_sface": ("ir_small", "sface"),
    "target_mobilenet": ("mobilenet_small", "softmax"),
    "target_senet": ("se_resnet_small", "softmax"),
    "target_inception_resnet": ("inception_resnet_small", "softmax"),
}
SETTINGS = {"cosface": (64.0, 0.07), "arcface": (64.0, 0.1)}  # scale and margin, for few people
FIRST, APART = 1_000_000, 10_000  # number of the first person; between two networks


def get_config(name: str) -> ml_collections.ConfigDict:
    """The config of one network of the package."""
    place = list(NETWORKS).index(name)
    config = defaults()
    config.network, config.head = NETWORKS[name]
    config.seed = place + 1
    config.half = True
    config.optimizer, config.learning_rate, config.warmup = "muon", 0.03, 100
    config.steps, config.augment = 1500, 0.0
    config.scale, config.margin = SETTINGS.get(config.head, (0.0, -1.0))
    config.data.synthetic.people, config.data.synthetic.photos = 5500, 9
    config.data.synthetic.first = FIRST + place * APART
    return config
