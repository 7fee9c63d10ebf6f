"""Command line: `python run.py VERB --flags`; without a verb, the verbs. See opom_jax/cli."""

import sys

from opom_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
