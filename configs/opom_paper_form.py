"""OPOM-ConvexHull as the paper writes it (Alg. 2): one mask from noise, sums of distances.

    python run.py generate --config=configs/opom_paper_form.py --workdir=runs/paper_form \\
        --config.surrogate=nets/SURROGATE --config.data.people=FOLDER
"""

from opom_jax.cli.config import get_config as defaults


def get_config():
    """The published settings with the paper's objective and update, no initial steps."""
    config = defaults()
    config.form = "paper"
    config.initial_steps = 0
    return config
