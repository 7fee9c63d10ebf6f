"""OPOM-ConvexHull with momentum and DFANet (the paper's 4.2.2): 100 steps, decay 1, dropout 0.1.

    python run.py generate --config=configs/opom_dfanet.py --workdir=runs/dfanet \\
        --config.surrogate=nets/softmax --config.data.people=FOLDER
    python run.py evaluate --config=configs/opom_dfanet.py --workdir=runs/dfanet \\
        --config.targets=nets/arcface,nets/cosface --config.data.people=FOLDER \\
        --config.data.distractors=FOLDER

`--config.method` takes every other objective. The published code does not seed these masks:
`--config.start=person` is nearer to it than the noise that the default gives everybody. The paper's
Tables 4 (Privacy-Commons) and 5 (Privacy-Celebrities) have the numbers to expect: for this method,
the Softmax surrogate and Privacy-Commons, Top-1 81.2 % against ArcFace and 73.6 % against CosFace,
3.3 and 3.4 points above 16 steps without. Not run here: neither the images nor the networks are
public downloads that a program can fetch. Nine times the work of configs/opom.py. For a surrogate
of a million weights 0.1 is far too much: docs/results.md, Table 4 on real faces.
"""

from opom_jax.cli.config import get_config as defaults


def get_config():
    """The published settings of the transfer methods."""
    config = defaults()
    config.steps = 100
    config.momentum = 1.0
    config.dropout = 0.1
    return config
