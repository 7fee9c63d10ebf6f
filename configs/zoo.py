"""The networks of the package, each from its own people and seed.

    python run.py train --config=configs/zoo.py:surrogate_arcface --workdir=runs/surrogate_arcface

Names: those of `NETWORKS` below; runs/NAME/network is what opom_jax/zoo/NAME holds. Where there is
a NAME_start it is trained first: the other goes on from its weights with another loss. Trained on
synthetic people that no study sees (numbers above a million; studies use those below), photos as
they are. Six to sixteen minutes each on two CPU cores, two or three of them for drawing the photos;
opom_jax/zoo/README.md has what they reach.
"""

from opom_jax.cli.config import Config
from opom_jax.cli.train import get_config as defaults

# name -> (network, head, its scale and margin, people, steps); scale and margin are for few people,
# 0 and -1 the head's own; the place in the table is the seed and chooses the people
NETWORKS = {
    "surrogate_softmax": ("ir_small", "softmax", 0.0, -1.0, 5500, 1500),
    "surrogate_cosface": ("ir_small", "cosface", 64.0, 0.07, 5500, 1500),
    "surrogate_arcface": ("ir_small", "arcface", 64.0, 0.1, 5500, 1500),
    "target_arcface": ("ir_small", "arcface", 64.0, 0.1, 5500, 1500),
    "target_cosface": ("ir_small", "cosface", 64.0, 0.07, 5500, 1500),
    "target_sface": ("ir_small", "sface", 0.0, -1.0, 5500, 1500),
    "target_mobilenet": ("mobilenet_small", "sface", 0.0, -1.0, 5500, 600),
    "target_senet": ("se_resnet_small", "sface", 0.0, -1.0, 5500, 1200),
    "target_inception_resnet": ("inception_resnet_small", "sface", 0.0, -1.0, 8000, 600),
    "target_mobilenet_start": ("mobilenet_small", "softmax", 0.0, -1.0, 5500, 1500),
    "target_inception_resnet_start": ("inception_resnet_small", "softmax", 0.0, -1.0, 8000, 2200),
}
FIRST, APART = 1_000_000, 10_000  # number of the first person; between two networks


def get_config(name: str) -> Config:
    """The config of one network of the package."""
    place = list(NETWORKS).index(name.removesuffix("_start"))
    config = defaults()
    config.network, config.head, config.scale, config.margin, people, config.steps = NETWORKS[name]
    config.seed = place + 1
    config.half = True
    config.optimizer, config.learning_rate, config.warmup = "muon", 0.03, 100
    if f"{name}_start" in NETWORKS:
        config.init = f"runs/{name}_start/network"
        config.learning_rate, config.warmup = 0.015, 50
    config.augment = 0.0
    config.data.synthetic.people, config.data.synthetic.photos = people, 9
    config.data.synthetic.first = FIRST + place * APART
    return config
