"""convert --weights=FILE --network=NAME --out=FOLDER
convert --weights=FILE.onnx --out=FOLDER --scaling=NAME
convert --weights=FILE.params --symbol=FILE-symbol.json --out=FOLDER
convert --weights=FILE.params --network=NAME --out=FOLDER
convert --weights=FOLDER --out=FILE.safetensors

Converts published weights into a network folder. With --network the file's arrays go into a family
of this package: every array must be found once and every name used, or the first that differ are
listed. ONNX files and MXNet's pairs hold the whole network and need no family; MXNet's arrays alone
go into the families of the paper's targets. The last form is the way back: the state dict of the
network's torch original.
"""

from pathlib import Path

from absl import flags as absl_flags

from converters.convert import SCALINGS, SIDE, convert, convert_graph
from converters.export import export
from opom_jax.cli import refuse
from opom_jax.errors import InputError
from opom_jax.networks.registry import CHANNELS, NETWORKS

OF_ARRAYS = ("network", "key", "prefix")  # flags
OF_GRAPHS = ("output", "size", "scaling", "channels")


def define(flags: absl_flags.FlagValues, argv: list[str]) -> list[str]:
    """Defines and parses the verb's flags; returns the arguments that are none."""
    string = absl_flags.DEFINE_string
    string("weights", None, "File of torch, Keras, ONNX or MXNet.", flag_values=flags)
    string("network", None, f"One of {', '.join(NETWORKS)}.", flag_values=flags)
    string("out", None, "Folder to make.", flag_values=flags)
    string("key", None, "Which dict of the file, where several could be meant.", flag_values=flags)
    string("prefix", None, "Take the names that begin so, and strip it.", flag_values=flags)
    string("symbol", None, "MXNet's symbol file, beside its .params.", flag_values=flags)
    string("output", None, "The embedding's name, if not the first output.", flag_values=flags)
    absl_flags.DEFINE_integer(
        "size",
        None,
        f"Side of the image, where the file leaves it open; {SIDE} if not given.",
        8,
        1024,
        flag_values=flags,
    )
    absl_flags.DEFINE_enum(
        "scaling", None, list(SCALINGS), "Pixel values that the graph wants.", flag_values=flags
    )
    absl_flags.DEFINE_enum(
        "channels", "RGB", list(CHANNELS), "Order that the graph wants.", flag_values=flags
    )
    return flags(argv)[1:]


def run(flags: absl_flags.FlagValues) -> None:
    """Converts, and says where the network is."""
    if Path(flags.out or "").suffix.lower() == ".safetensors":
        _export(flags)
        return
    whole = flags.symbol is not None or Path(flags.weights or "").suffix.lower() == ".onnx"
    for name in ("weights", "out") if whole else ("weights", "network", "out"):
        if not flags[name].value:
            pair = name == "network" and Path(flags.weights).suffix.lower() == ".params"
            raise InputError(f"--{name}{' or --symbol' if pair else ''} is missing; see --help.")
    if not whole:
        refuse(flags, OF_GRAPHS, "a file of named arrays")
        folder = convert(
            flags.weights, flags.network, flags.out, key=flags.key, prefix=flags.prefix
        )
        print(f"{flags.network}: {folder}")
        return
    refuse(flags, OF_ARRAYS, "a file that holds the whole network")
    folder = convert_graph(
        flags.weights,
        flags.out,
        symbol=flags.symbol,
        size=flags.size,
        output=flags.output,
        scaling=flags.scaling,
        channels=flags.channels,
    )
    print(f"graph: {folder}")


def _export(flags: absl_flags.FlagValues) -> None:
    if not flags.weights:
        raise InputError("--weights is missing; name the folder of the network to export.")
    refuse(flags, (*OF_ARRAYS, "symbol", *OF_GRAPHS), "the export of a network")
    print(f"safetensors: {export(flags.weights, flags.out)}")
