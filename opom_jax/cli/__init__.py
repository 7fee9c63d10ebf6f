"""The command line: one verb a file, each with `define(flags, argv)` and `run(flags)`, and
`RESUMES = True` if the same command goes on where an interruption stopped it.

A verb's module is imported only when it is called. Whatever is wrong with the input ends in one
sentence on standard error and exit code 2, before anything is computed.
"""

import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterable

from absl import flags as absl_flags

from opom_jax import heap
from opom_jax.errors import InputError
from opom_jax.files import cache_folder, private_folder

VERBS = {
    "demo": "the whole system on what comes with the package, in minutes",
    "convert": "published weights -> a network folder that the other verbs read",
    "generate": "photos -> one mask per person",
    "evaluate": "masks -> protection rates against target networks (1:N identification)",
    "table": "one of the paper's tables or figures, on the data and networks there are",
    "train": "photos or synthetic people -> a recogniser",
    "bench": "how fast this device makes masks, and how near to what it can do",
    "models": "which networks there are; fetch public ones, check one on faces",
}
# XLA sends convolutions to one of two CPU libraries; without this one the step is 9-14 % faster.
_CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type="


def main(argv: list[str] | None = None) -> int:
    """Runs one verb and returns its exit code: 0 done, 1 interrupted, 2 refused.

    Args:
      argv: program name, verb, flags; sys.argv if not given.
    """
    argv = sys.argv if argv is None else argv
    if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    verb = argv[1]
    if verb not in VERBS:
        print(f"opom-jax: unknown verb {verb!r}; choose from {', '.join(VERBS)}.", file=sys.stderr)
        return 2
    prepare_jax()
    module = importlib.import_module(f"opom_jax.cli.{verb}")
    try:
        flags = _parse(module, [f"{argv[0]} {verb}", *argv[2:]])
        if flags is None:
            return 0
        module.run(flags)
    except InputError as error:
        print(f"opom-jax {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = "continues" if getattr(module, "RESUMES", False) else "starts anew"
        print(f"opom-jax {verb}: interrupted; the same command {again}.", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `models list | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left unwritten at the exit
        return 1
    return 0


def prepare_jax() -> None:
    """Settings of the process that must stand before JAX starts: memory, CPU library, cache."""
    heap.keep()
    if _CPU_FLAG not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_CPU_FLAG}".strip()
    warnings.filterwarnings("ignore", message="JAXopt is no longer maintained")
    import jax

    # else the CPU sets memory aside for every step that waits in line
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    folder = cache_folder() / "xla"
    if private_folder(folder):
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _parse(module, argv: list[str]) -> absl_flags.FlagValues | None:
    """The verb's flags, or None after printing its help."""
    values = absl_flags.FlagValues()
    if any(a in ("--help", "-h", "--helpfull", "--helpshort") for a in argv[1:]):
        module.define(values, [argv[0]])
        print(module.__doc__)
        print(values.get_help())
        return None
    try:
        rest = module.define(values, argv)  # parsed once: tuples grow with each parsing
    except absl_flags.Error as error:
        raise refused(error) from error
    if rest:
        raise InputError(f"Unexpected argument {rest[0]!r}; flags look like --name=value.")
    return values


def refused(error: absl_flags.Error) -> InputError:
    """What absl says of a flag; of a boolean it would say it as a Python tuple."""
    said = re.sub(r"\('Non-boolean .*", "must be true or false", str(error).splitlines()[0])
    return InputError(f"{said}; see --help.")


def refuse(flags: absl_flags.FlagValues, names: Iterable[str], what: str) -> None:
    """Raises InputError for the first of these flags that was given, as it means nothing there."""
    for name in names:
        if flags[name].present:
            raise InputError(f"--{name} means nothing for {what}; leave it out.")


def _usage() -> str:
    lines = [f"  {verb:10} {what}" for verb, what in VERBS.items()]
    return "\n".join(
        ["usage: python run.py VERB --flags   (VERB --help lists its flags)", "", *lines]
    )
