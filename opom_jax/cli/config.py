"""The configuration that generate and evaluate share: every key, its default and its check.

A file in `configs/` starts from `get_config()` here (or a verb's own) and changes what its
experiment needs; the command line overrides single keys with `--config.key=value`. Unknown keys are
refused.
"""

import ast
import inspect
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections.config_dict
from absl import flags as absl_flags
from ml_collections import config_flags

from opom_jax.cli import refused
from opom_jax.data import lists, pairs, people
from opom_jax.errors import InputError
from opom_jax.files import unusable
from opom_jax.masks import objectives
from opom_jax.masks.generate import Settings
from opom_jax.methods import METHODS
from opom_jax.networks import recognizer
from opom_jax.networks.recognizer import PRECISIONS, Recognizer

Config = Any  # an ml_collections.ConfigDict: its attributes have no types


def get_config() -> Config:
    """The defaults: OPOM-ConvexHull as published, on photos that the user names."""
    return ml_collections.config_dict.create(
        # fi_uap, fi_uap_plus, affine_hull, class_center, convex_hull; fi_uap_all, gd_uap, gap
        method="convex_hull",
        surrogate="",  # folder of a converted network, or several, attacked together
        targets=(),  # folders of converted networks, for evaluate
        epsilon=8.0,  # largest change of a pixel, 0..255
        step_size=1.0,
        steps=16,
        initial_steps=5,  # ClassCenter steps at the start of convex_hull
        lower=0.0,  # coefficients of the reduced hull
        upper=1.0,
        momentum=0.0,  # decay; the papers use 1.0
        dropout=0.0,  # share of the convolutions' outputs that DFANet drops; published 0.1
        form="published",  # or "paper": objective and update
        seed=0,
        start="published",  # noise of all people alike as published, or "person": their own
        precision="float32",  # or "bfloat16": convolutions
        people_per_batch=0,  # on each device; 0: chosen from memory_gib
        memory_gib=0.0,  # for a batch on a device; 0: 2 on CPU, 60 % of what is free elsewhere
        diverse=0,  # masks a person, 2 or more, each away from the others (Eq. 19); 0: the one
        rounding="truncate",  # of masked probes to uint8: "truncate" as published, or "round"
        gallery="clean",  # or "protected": also masked probes against masked gallery photos
        baseline=ml_collections.config_dict.create(
            iterations=10_000,  # of gd_uap, at most
            epochs=10,  # of gap, as all below
            photos_per_step=30,
            learning_rate=2e-4,
            width=64,  # channels of the generator's first convolution
            blocks=6,
        ),
        data=ml_collections.config_dict.create(
            people="",  # a folder with a folder per person, or instead the lists below
            root="",  # what the lists' paths are relative to
            train_list="",
            train_per_person=10,
            test_list="",
            test_per_person=0,  # 0: consecutive lines of one folder are one person
            list_format="path",  # or "megaface": the path is the second column
            distractors="",  # a folder or a list
            distractors_format="",  # of that list, if another than list_format
            pairs="",  # a list of pairs of photos for 1:1 verification
            pairs_format="path",  # "path path 1|0" a line, or "lfw": LFW's own pairs.txt
            limit=0,  # people; 0: all
            image_size=112,
            resize=False,  # other sizes: resized, or else refused
        ),
    )


def define(
    flags: absl_flags.FlagValues,
    argv: list[str],
    workdir_help: str,
    defaults: Callable[[], Config] = get_config,
) -> list[str]:
    """Defines --config and --workdir and parses the command line.

    Args:
      flags: receives them.
      argv: program name and flags.
      workdir_help: what --workdir is for.
      defaults: a module's `get_config`: every key of the verb and its default.

    Returns:
      The arguments that are no flags.

    Raises:
      InputError: a config file that cannot be loaded, an unknown key, a value of another type.
    """
    known = _flat(defaults())
    for argument in argv:
        key = re.match(r"--?(?:no)?config\.([^=]*)", argument)
        if key and key[1] not in known:
            raise _unknown(key[1], known)
    argv = [_quoted(argument) for argument in argv]
    absl_flags.DEFINE_string("workdir", None, workdir_help, flag_values=flags)
    given = next((a for a in argv if re.match(r"--?config(=|$)", a)), "--config")
    first = next((a for a in argv if re.match(r"--?(no)?config[.=]|--?config$", a)), given)
    if given in argv and first != given:
        raise InputError(f"{given} must come before {first}, which changes it; put it first.")
    try:
        config_flags.DEFINE_config_file(
            "config",
            inspect.getfile(defaults),
            "A file of configs/; keys: " + ", ".join(known),
            flag_values=flags,
            sys_argv=argv,
        )
        rest = flags(argv)[1:]
        found = _flat(flags.config)
    except absl_flags.Error as error:
        if "parsing config file" in str(error):
            raise _unloadable(given, str(error)) from error
        raise refused(error) from error
    except (Exception, SystemExit) as error:  # a config file is a program and may raise anything
        raise _unloadable(given, f"{type(error).__name__}: {error}") from error
    _check_kinds(given, found, known)
    return rest


def _check_kinds(given: str, found: dict[str, Any], known: dict[str, Any]) -> None:
    for key in sorted(found.keys() - known.keys()):
        raise _unknown(key, known)
    for key, default in known.items():
        wanted = {float: (int, float), tuple: (tuple, list)}.get(type(default), type(default))
        if key not in found or not isinstance(found[key], wanted):
            raise InputError(
                f"{given}: config.{key}={found.get(key)!r} must be a {type(default).__name__}."
            )
    if not all(isinstance(target, str) for target in found.get("targets", ())):
        raise InputError(
            f"config.targets={found['targets']!r} must be names of folders; write "
            "--config.targets=NETWORK,NETWORK."
        )


def _quoted(argument: str) -> str:
    """--config.targets=a,b as the literal that absl's tuples want."""
    flag, _, value = argument.partition("=")
    if flag.lstrip("-") != "config.targets":
        return argument
    if not value.startswith(("(", "[", "'", '"')):
        return f"{flag}={tuple(filter(None, value.split(',')))!r}"
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError(
            f"{argument}: brackets or quotes are not closed, or a name in brackets has no quotes; "
            f"write {flag}=NETWORK,NETWORK."
        ) from error
    return argument


def _unknown(key: str, known: dict[str, Any]) -> InputError:
    return InputError(f"Unknown config key {key!r}; known keys: {', '.join(known)}.")


def _unloadable(given: str, reason: str) -> InputError:
    last = reason.strip().splitlines()[-1].strip()
    return InputError(f"{given}: the file cannot be loaded ({last}); mend it.")


def settings(config: Config) -> Settings:
    """What decides a mask; InputError for what is out of range or means nothing for the method."""
    known = [name for name, of in METHODS.items() if of.serves != "photo"]
    require("method", config.method, config.method in known, f"one of {', '.join(known)}")
    kind = METHODS[config.method].settings
    flat = _flat(config)
    flat |= {key.removeprefix("baseline."): value for key, value in flat.items()}
    chosen = kind(**{name: flat[name] for name in kind.__dataclass_fields__})
    try:
        chosen.check()
    except InputError as error:
        name, rest = str(error).split("=", 1)
        key = f"baseline.{name}" if name in config.baseline else name
        raise InputError(f"config.{key}={rest}") from error
    several = kind is Settings and 2 <= config.diverse <= 100
    wanted = f"0, or 2 to 100 with one of {', '.join(objectives.METHODS)}"
    require("diverse", config.diverse, config.diverse == 0 or several, wanted)
    checks = {
        "precision": PRECISIONS,
        "rounding": ("truncate", "round"),
        "gallery": ("clean", "protected"),
        "data.list_format": lists.LIST_FORMATS,
        "data.distractors_format": ("", *lists.LIST_FORMATS),
        "data.pairs_format": tuple(pairs.PAIRS_FORMATS),
    }
    for key, allowed in checks.items():
        require(key, _get(config, key), _get(config, key) in allowed, f"one of {allowed}")
    require("people_per_batch", config.people_per_batch, config.people_per_batch >= 0, ">= 0")
    memory = config.memory_gib
    require("memory_gib", memory, 0 <= memory < math.inf, ">= 0 and finite")
    size = config.data.image_size
    require("data.image_size", size, 16 <= size <= 1024, "between 16 and 1024")
    _check_read(config.method, flat)
    return chosen


def _check_read(method: str, flat: dict[str, Any]) -> None:
    """Refuses a key that only other methods read, unless it has its default."""
    others = {name for of in METHODS.values() for name in of.reads} - {*METHODS[method].reads}
    for key, default in _flat(get_config()).items():
        if key.removeprefix("baseline.") in others and flat[key] != default:
            raise InputError(
                f"config.{key}={flat[key]!r} means nothing for method {method}; leave it out."
            )


def require(key: str, value: Any, ok: bool, wanted: str) -> None:
    """Raises InputError that names a config key unless ok."""
    if not ok:
        raise InputError(f"config.{key}={value!r} must be {wanted}.")


def workdir(flags: absl_flags.FlagValues) -> Path:
    """The folder of --workdir, there or not; InputError if it was not given, cannot be looked at,
    or is or would be below what is no folder."""
    if not flags.workdir:
        raise InputError("--workdir is missing; name the folder for the results.")
    folder = Path(flags.workdir)
    try:
        there = nearest(folder)
    except OSError as error:
        raise unusable(folder, error) from error
    if not there.is_dir():
        raise InputError(
            f"{folder} cannot be used ({there} is no folder); choose another --workdir."
        )
    return folder


def check_writable(workdir: Path) -> None:
    """Refuses what cannot be written before photos are looked at."""
    if not os.access(there := nearest(workdir), os.W_OK):
        raise InputError(f"{there} cannot be written; choose another --workdir.")


def nearest(path: Path) -> Path:
    """The path itself or, if it is not there, the first of the folders above it that is."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def load_surrogates(config: Config) -> tuple[Recognizer, ...]:
    """The networks of `config.surrogate`, none if it names none; InputError if one is named twice
    or cannot be loaded."""
    names = [name.strip() for name in config.surrogate.split(",") if name.strip()]
    named = bool(names) == bool(config.surrogate)
    require("surrogate", config.surrogate, named, "the folder of a converted network, or several")
    loaded = tuple(recognizer.load(name, config.precision) for name in names)
    digests = [network.digest for network in loaded]
    for name, digest in zip(names, digests, strict=True):
        require("surrogate", config.surrogate, digests.count(digest) == 1, f"without {name} twice")
    return loaded


def load_people(data: Config) -> people.People:
    """The people of `config.data`; InputError if they are not named in exactly one way."""
    if bool(data.people) == bool(data.train_list):
        raise InputError(
            "Name the people either as config.data.people (a folder with a folder per person) or "
            "as config.data.root with config.data.train_list."
        )
    for name in ("train_per_person", "test_per_person", "limit"):
        require(f"data.{name}", data[name], data[name] >= 0, ">= 0")
    if data.people:
        require("data.train_per_person", data.train_per_person, data.train_per_person > 0, "> 0")
        for name in ("test_list", "test_per_person"):
            if data[name]:
                raise InputError(
                    f"config.data.{name}={data[name]} means nothing with config.data.people, whose "
                    "other photos are the test; leave it out."
                )
        return people.from_folder(data.people, data.train_per_person, data.limit)
    return people.from_lists(
        data.root,
        data.train_list,
        data.train_per_person,
        data.test_list,
        data.test_per_person,
        data.list_format,
        data.limit,
    )


def use_precision(precision: str) -> None:
    """float32 means float32 everywhere: no TF32 in an accelerator's products."""
    choice = "highest" if precision == "float32" else "default"
    jax.config.update("jax_default_matmul_precision", choice)


def _flat(config, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        nested = isinstance(value, ml_collections.ConfigDict)
        flat |= _flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def _get(config, key: str) -> Any:
    return _flat(config)[key]
