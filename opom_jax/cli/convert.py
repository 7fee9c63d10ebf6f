"""convert --weights=FILE --network=NAME --out=FOLDER

Converts published weights into a network folder. The format is recognised from the file's
contents; every array must be found once and every name used, or all that differ are listed.
"""

from absl import flags as absl_flags

from converters.convert import convert
from opom_jax.errors import InputError
from opom_jax.networks.registry import NETWORKS


def define(flags: absl_flags.FlagValues, argv: list[str]) -> list[str]:
    """Defines and parses the verb's flags; returns the arguments that are none."""
    string = absl_flags.DEFINE_string
    string("weights", None, "Torch file: .pth, .pt or .ckpt.", flag_values=flags)
    string("network", None, f"One of {', '.join(NETWORKS)}.", flag_values=flags)
    string("out", None, "Folder to make.", flag_values=flags)
    string("key", None, "Which dict of the file, where several could be meant.", flag_values=flags)
    string("prefix", None, "Take the names that begin so, and strip it.", flag_values=flags)
    return flags(argv)[1:]


def run(flags: absl_flags.FlagValues) -> None:
    """Converts, and says where the network is."""
    for name in ("weights", "network", "out"):
        if not flags[name].value:
            raise InputError(f"--{name} is missing; see --help.")
    folder = convert(flags.weights, flags.network, flags.out, key=flags.key, prefix=flags.prefix)
    print(f"{flags.network}: {folder}")
