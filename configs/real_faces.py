"""OPOM on the shared real faces: 56 people of LFW, 2,400 distractors, small public recognisers.

    export OPOM_REAL_DATA=/path/to/real
    python run.py convert --network=mobilefacenet_xiaoccer --out=nets/xiaoccer \\
        --weights=$OPOM_REAL_DATA/weights/mobilefacenet_xiaoccer/068.ckpt
    python run.py generate --config=configs/real_faces.py --workdir=runs/xiaoccer \\
        --config.surrogate=nets/xiaoccer
    python run.py evaluate --config=configs/real_faces.py --workdir=runs/xiaoccer \\
        --config.targets=nets/bubbliiiing,nets/foamliu,nets/lh377k

The targets are converted in the same way. Two minutes for the masks on two CPU cores.
docs/results.md has the rates of every method beside the published code's.
"""

import os

from opom_jax.cli.config import get_config as defaults


def get_config():
    """The folders of OPOM_REAL_DATA; without it, those of ../shared/real."""
    root = os.environ.get("OPOM_REAL_DATA", "../shared/real")
    config = defaults()
    config.data.people = f"{root}/faces_112/lfw"
    config.data.distractors = f"{root}/faces_112/lfw_distractors"
    return config
