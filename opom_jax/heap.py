"""glibc's heap, where there is glibc: what is freed stays for the next step, but not for ever."""

import ctypes
import functools
import sys
import threading
import time
from collections.abc import Callable

_ARENAS, _MAPPINGS, _TRIM, _PAD = -8, -4, -1, -2  # names of malloc.h
SECONDS = 30  # for which what is freed stays, at most


@functools.cache
def keep(seconds: float = SECONDS) -> None:
    """Has glibc keep what is freed, and hand it to the system every so many seconds.

    It would hand large arrays back at once, and the system zero their pages anew in every step: a
    fifth of the CPU time. One heap, grown and never trimmed, no mapping of single arrays. Small
    things that stay where a large array was keep the next one from its place, and such a heap would
    grow by an array again and again: a run of thousands of steps took all memory there was.
    """
    for parameter, value in ((_ARENAS, 1), (_MAPPINGS, 0), (_TRIM, -1), (_PAD, 64 << 20)):
        _glibc("mallopt")(parameter, value)
    threading.Thread(target=_give_back, args=(seconds,), name="heap", daemon=True).start()


def _give_back(seconds: float) -> None:
    trim = _glibc("malloc_trim")
    while True:
        time.sleep(seconds)
        trim(0)


def _glibc(name: str) -> Callable[..., object]:
    """One of its functions; elsewhere one that does nothing."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return getattr(library, name, lambda *_: None)
