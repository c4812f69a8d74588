"""Processes of a pool end with the one that began them, whatever ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# What a worker of a pool does is not interrupted when the pool's process is gone: without an initializer it works on.
POOL = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from asr_service.parent_process import end_with_parent

def work(_):
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("{method}")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        list(pool.map(work, [0]))
"""


def alive(pid: int) -> bool:
    """A process that has ended and that nobody has asked for is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells them")
@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_of_a_pool_ends_with_the_one_that_began_it(tmp_path: Path, method: str, how: signal.Signals) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL.format(method=method), encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as pool:
        assert pool.stdout is not None
        worker = int(pool.stdout.readline())
        assert alive(worker)
        pool.send_signal(how)
    until = time.monotonic() + 20
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(worker)
