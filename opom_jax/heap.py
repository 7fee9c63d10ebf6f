"""glibc's heap, where there is glibc: what is freed stays for the next step, but not for ever."""

import ctypes
import sys
from collections.abc import Callable

_ARENAS, _MAPPINGS, _TRIM, _PAD = -8, -4, -1, -2  # names of malloc.h


def keep() -> None:
    """Has glibc keep what is freed.

    It would hand large arrays back to the system, which zeroes their pages anew in every step: a
    fifth of the CPU time. One heap, grown and never trimmed, no mapping of single arrays.
    """
    for parameter, value in ((_ARENAS, 1), (_MAPPINGS, 0), (_TRIM, -1), (_PAD, 64 << 20)):
        _glibc("mallopt")(parameter, value)


def give_back() -> None:
    """Hands what is free to the system now. Small things that stay where a large array was keep the
    next one from its place, and the heap grows by an array again and again: a run of thousands of
    steps took all memory there was."""
    _glibc("malloc_trim")(0)


def _glibc(name: str) -> Callable[..., object]:
    """One of its functions; elsewhere one that does nothing."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return getattr(library, name, lambda *_: None)
