"""Freed memory, kept for some seconds."""

import subprocess
import sys

import pytest

SCRIPT = """
from opom_jax import heap
import re, time

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024

heap.keep(seconds=1)
arrays = [bytearray(8 << 20) for _ in range(16)]
held = resident()
del arrays
print(held - resident())
for _ in range(600):
    time.sleep(0.1)
    if held - resident() > 100:
        break
print(held - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap is Linux's")
def test_what_is_freed_is_kept_and_given_back():
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    soon, later = map(int, ran.stdout.split())
    assert soon < 10 and later > 100, "MiB of 128"
