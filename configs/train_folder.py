"""A recogniser from a folder with a folder per person, aligned crops of 112 x 112 pixels.

    python run.py train --config=configs/train_folder.py --workdir=runs/train \\
        --config.data.people=FOLDER

The number of steps is about 20 times round 10 000 photos; set it to what the photos need. The
trained network is runs/train/network, for --config.surrogate and --config.targets.
"""

from opom_jax.cli.train import get_config as defaults


def get_config():
    """ArcFace on the small network."""
    config = defaults()
    config.batch = 128
    config.steps = 1600
    config.warmup = 160
    config.eval_every = 200
    config.checkpoint_every = 200
    return config
