"""One line on standard error that says how far long work is, and what it waits for."""

import sys
import time


class Progress:
    """Prints done/total, rate and time left, at most once a second on a terminal and every ten
    seconds elsewhere."""

    def __init__(self, what: str, unit: str, done: int = 0):
        self.what, self.unit, self.first = what, unit, done
        self.start = self.last = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if done < total and now - self.last < (1 if self.terminal else 10):
            return
        self.last = now
        rate = (done - self.first) / max(now - self.start, 1e-9)
        left = (total - done) / rate if rate > 0 else float("inf")
        line = f"{self.what}: {done}/{total} {self.unit}, {rate:.3g}/s, {left:.0f} s left"
        line += f", {note}" if note else ""
        end = "\n" if done >= total or not self.terminal else "\r"
        print(f"\x1b[K{line}" if self.terminal else line, end=end, file=sys.stderr, flush=True)


class Idle:
    """How much of the time since it was made is spent in its `with` blocks, waiting."""

    def __init__(self):
        self.start, self.seconds = time.monotonic(), 0.0

    def __enter__(self) -> None:
        self.since = time.monotonic()

    def __exit__(self, *_) -> None:
        self.seconds += time.monotonic() - self.since

    def share(self) -> float:
        """In 0..1."""
        return self.seconds / max(time.monotonic() - self.start, 1e-9)
