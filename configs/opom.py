"""OPOM-ConvexHull as published: 16 steps of +-1 within +-8, 10 photos a person, 5 initial steps.

    python run.py generate --config=configs/opom.py --workdir=runs/opom \\
        --config.surrogate=nets/SURROGATE --config.data.people=FOLDER
    python run.py evaluate --config=configs/opom.py --workdir=runs/opom \\
        --config.targets=nets/TARGET1,nets/TARGET2 --config.data.people=FOLDER \\
        --config.data.distractors=FOLDER

The numbers to expect depend on networks and photos; docs/results.md has them for public ones.
"""

from opom_jax.cli.config import get_config as defaults


def get_config():
    """The defaults, which are the published settings."""
    return defaults()
