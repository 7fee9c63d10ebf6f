"""Freed memory, kept for some steps."""

import subprocess
import sys

import pytest

SCRIPT = """
from opom_jax import heap
import re

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024

heap.keep()
arrays = [bytearray(8 << 20) for _ in range(16)]
del arrays
kept = resident()
heap.give_back()
print(kept - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap is Linux's")
def test_what_is_freed_is_kept_and_given_back():
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(ran.stdout) > 100, "MiB of 128"
