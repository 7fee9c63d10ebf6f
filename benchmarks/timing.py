"""What the benchmarks share: programs that take turns, their table, and a CSV of both."""

import csv
import datetime
import os
import re
import resource
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, NamedTuple

from opom_jax import speed


class Turn(NamedTuple):
    """One call of a program: wall and processor seconds (of all threads, and of processes that it
    started), and what it returned."""

    program: str
    round: int
    wall: float
    cpu: float
    result: Any


def take_turns(programs: Mapping[str, Callable[[], Any]], rounds: int) -> list[Turn]:
    """Calls every program once a round, in the mapping's order, so that all share a bad minute."""
    turns = []
    for number in range(1, rounds + 1):
        for name, program in programs.items():
            wall, cpu = perf_counter(), _processor_seconds()
            result = program()
            wall, cpu = perf_counter() - wall, _processor_seconds() - cpu
            turns.append(Turn(name, number, wall, cpu, result))
            print(f"round {number}, {name}: {turns[-1].wall:.4g} s", flush=True)
    return turns


def report(
    turns: Sequence[Turn],
    counts: Mapping[str, int],
    unit: str,
    extra: Callable[[Turn], Mapping[str, float]] = lambda turn: {},
) -> list[dict[str, Any]]:
    """Prints the table of medians and returns its rows, one a turn.

    Args:
      turns: of `take_turns`; ratios are to the program that comes first.
      counts: how many units each program did in a turn.
      unit: what is counted ("person"): times are in seconds a unit.
      extra: more columns of a turn, shown as medians.

    Returns:
      Rows with wall and processor seconds a unit.
    """
    rows = [
        {
            "program": turn.program,
            "round": turn.round,
            "units": counts[turn.program],
            f"seconds_per_{unit}": turn.wall / counts[turn.program],
            f"cpu_seconds_per_{unit}": turn.cpu / counts[turn.program],
            **extra(turn),
        }
        for turn in turns
    ]
    more = list(extra(turns[0]))
    heads = ["units", f"s/{unit}", "min", "CPU s", "ratio", *more]
    print(f"\n{'':32}" + "".join(f"{head:>12}" for head in heads))
    ours = None
    for program in counts:
        own = [row for row in rows if row["program"] == program]
        wall, cpu, *others = (
            median(row[key] for row in own)
            for key in (f"seconds_per_{unit}", f"cpu_seconds_per_{unit}", *more)
        )
        ours = ours or wall
        least = min(row[f"seconds_per_{unit}"] for row in own)
        numbers = (counts[program], wall, least, cpu, wall / ours, *others)
        print(f"{program:32}" + "".join(f"{number:12.4g}" for number in numbers))
    return rows


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(precision: str) -> dict[str, Any]:
    """Columns for every row: device, versions, date, and the load average before the work."""
    return {
        "device": speed.device(),
        "cpu": speed.processor(),
        "cores": cores(),
        "load_before": round(os.getloadavg()[0], 2),
        "precision": precision,
        **{name: _version(name) for name in ("jax", "torch", "cvxpy", "numpy")},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def write(
    folder: str, name: str, rows: Sequence[dict[str, Any]], columns: Mapping[str, Any]
) -> None:
    """Writes FOLDER/NAME_DEVICE_PRECISION_jax-VERSION.csv anew, each row followed by `columns`, and
    says so."""
    device = re.sub(r"[^a-z0-9]+", "-", columns["device"].lower()).strip("-")
    own = f"{name}_{device}_{columns['precision']}_jax-{columns['jax']}.csv"
    path = Path(folder) / own
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *columns])
        writer.writeheader()
        writer.writerows({**row, **columns} for row in rows)
    print(", ".join(f"{key} {value}" for key, value in columns.items()))
    if columns["load_before"] > columns["cores"] / 4:
        print("Others used the machine, which slows threads that wait for each other: repeat it.")
    print(path)


def _processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process_time() + children.ru_utime + children.ru_stime


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
