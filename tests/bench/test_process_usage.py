"""Processor time and memory of a process and its children."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asr_service.bench.process_usage import usage

pytestmark = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc")
BALLAST = "import sys; ballast = bytearray(50 << 20); print('ready', flush=True); sys.stdin.read()"


def test_work_is_counted_as_processor_time():
    before, clock = usage(os.getpid()), time.process_time()
    while time.process_time() - clock < 0.1:
        sum(range(1000))
    after = usage(os.getpid())
    assert before is not None and after is not None
    assert after.cpu_s - before.cpu_s >= 0.05


def test_children_count_too():
    before = usage(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", BALLAST], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None and child.stdout.readline()
        during = usage(os.getpid())
    assert before is not None and during is not None
    assert during.resident_bytes - before.resident_bytes > 50 << 20


def test_a_process_that_is_not_there_has_none():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert usage(child.pid) is None
