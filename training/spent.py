"""What a run took, and where: kept in its folder, added up over every start of the same run."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from asr_service.evaluation import provenance

SPENT_FILE = "time.json"


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds by the clock and of CPU; when, on what and with which code the last of them were."""

    wall_s: float
    cpu_s: float
    date: str
    machine: str
    commit: str

    def after(self, before: Spent) -> Spent:
        """Both."""
        return dataclasses.replace(self, wall_s=before.wall_s + self.wall_s, cpu_s=before.cpu_s + self.cpu_s)


def spent(folder: Path) -> Spent:
    return Spent(**json.loads((folder / SPENT_FILE).read_text()))


@contextlib.contextmanager
def timed(folder: Path, device: str, processes: int = 1) -> Iterator[None]:
    """Adds what goes on inside, on `device`, to what the folder keeps, if there is a folder by then.

    Of several `processes` one does so: the CPU's time is its own alone.
    """
    begun, used = time.monotonic(), _cpu_s()
    try:
        yield
    finally:
        if folder.exists():
            now = Spent(
                wall_s=time.monotonic() - begun,
                cpu_s=_cpu_s() - used,
                date=today(),
                machine=machine(torch.get_num_threads(), device, processes),
                commit=commit(),
            )
            path = folder / SPENT_FILE
            path.write_text(json.dumps(dataclasses.asdict(now.after(spent(folder)) if path.exists() else now)))


def machine(threads: int, device: str = "cpu", processes: int = 1) -> str:
    """The GPU that `device` is, or the CPU and the cores this process may use; processes, threads of each, torch."""
    name = provenance.machine() if device == "cpu" else torch.cuda.get_device_name(device)
    several = f"{processes} processes, " if processes > 1 else ""
    return f"{name}, {several}{threads} thread(s), torch {torch.__version__}"


def today() -> str:
    """As ISO 8601 has it."""
    return dt.datetime.now(tz=dt.UTC).date().isoformat()


def commit() -> str:
    """The checked-out commit, marked where training or service differ from it."""

    def git(*words: str) -> str:
        command = [shutil.which("git") or "git", *words]
        result = subprocess.run(command, cwd=Path(__file__).parent, check=False, capture_output=True, text=True)
        return result.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", "../asr_service")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def _cpu_s() -> float:
    """CPU time of this process and of those it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
