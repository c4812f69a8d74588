"""Freed memory stays with a training process, and with no other."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = """
import numpy as np
from training.allocator import keep_freed_memory

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

if {keep}:
    assert keep_freed_memory(), "not glibc"
before = resident_mb()
block = np.ones(200 * 2**20, np.uint8)
del block
print(resident_mb() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
@pytest.mark.parametrize("keep", [True, False])
def test_memory_freed_in_a_step_is_there_in_the_next(keep: bool) -> None:
    probe = PROBE.format(keep=keep)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    if "not glibc" in done.stderr:
        pytest.skip("another malloc")
    assert done.returncode == 0, done.stderr
    kept_mb = float(done.stdout)
    assert kept_mb > 190 if keep else kept_mb < 20
