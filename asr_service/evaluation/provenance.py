"""What made an evaluation: enough to make it again, and nothing about where this machine keeps its files."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import asr_service


def provenance(arguments: Sequence[str]) -> dict[str, str]:
    """Command as it was typed, machine, versions, commit and date (UTC), each as text.

    What `--metadata` tells a proxy may be a secret: its key alone is kept.

    Args:
        arguments: of the command `asr`, without its name.
    """
    about = {
        "command": shlex.join(["asr", *_without_secrets(arguments)]),
        "machine": machine(),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "asr_service": _version("asr-service"),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    return about | source()


def _without_secrets(arguments: Sequence[str]) -> Iterator[str]:
    before = ""
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if _is_metadata(before):
            yield f"{option}=…"
        elif equals and _is_metadata(option):
            yield f"{option}={value.partition('=')[0]}=…"
        else:
            yield argument
        before = argument


def _is_metadata(option: str) -> bool:
    """In full, or as short as argparse takes it."""
    return len(option) > len("--m") and "--metadata".startswith(option)


def machine() -> str:
    """The processor's name and how many of its cores this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def source() -> dict[str, str]:
    """`commit` of this source tree and `code`, the tree object of the package alone; both with `+` where files changed.

    Empty where the package is no checkout: one installed into an environment that lies inside some other repository is
    none of that.
    """
    here = Path(asr_service.__file__)
    if _git(here, "ls-files", "--error-unmatch", here.name) is None:
        return {}
    changed = "+" if _git(here, "status", "--porcelain", "--untracked-files=no", ".") else ""
    found = {"commit": _git(here, "rev-parse", "HEAD"), "code": _git(here, "rev-parse", "HEAD:./")}
    return {name: f"{value}{changed}" for name, value in found.items() if value}


def _git(beside: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(beside.parent), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
