"""Processor time and memory of a process and its children."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asr_service.bench import process_usage
from asr_service.bench.process_usage import Usage, usage

pytestmark = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc")
BALLAST = "import sys; ballast = bytearray(50 << 20); print('ready', flush=True); sys.stdin.read()"


def test_work_is_counted_as_processor_time():
    before, clock = usage(os.getpid()), time.process_time()
    while time.process_time() - clock < 0.1:
        sum(range(1000))
    after = usage(os.getpid())
    assert before is not None and after is not None
    assert after.cpu_s - before.cpu_s >= 0.05


def test_user_and_system_time_and_the_resident_pages_are_added_over_the_family_whatever_its_names(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(process_usage, "PROC", tmp_path)
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    family = ((10, 1, 3, 5, 7), (11, 10, 20, 30, 40), (14, 11, 100, 200, 300))
    for pid, parent, user_s, system_s, pages in (*family, (12, 1, 900, 900, 900)):
        folder = tmp_path / str(pid)
        folder.mkdir()
        fields = ["S", parent, *range(101, 110), user_s * ticks, system_s * ticks, 112]
        # A name that is cut in the middle of a letter: the kernel keeps 15 bytes.
        (folder / "stat").write_bytes(b"%d (a (b) \xc3) %s\n" % (pid, " ".join(map(str, fields)).encode()))
        (folder / "statm").write_text(f"1000 {pages} 3 4\n")
    assert usage(10) == Usage(cpu_s=3 + 5 + 20 + 30 + 100 + 200, resident_bytes=(7 + 40 + 300) * page)
    assert usage(13) is None


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
