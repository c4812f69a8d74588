"""Processor time and memory of the server's process and all its children, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
# In /proc/<pid>/stat behind the name: state is 0 there, so these are fields 4, 14 and 15 of proc(5).
PARENT, USER_TICKS, SYSTEM_TICKS = 1, 11, 12


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process and its descendants.

    Attributes:
        cpu_s: user and system time so far.
        resident_bytes: memory that is resident now; what processes share counts for each of them.
    """

    cpu_s: float
    resident_bytes: int


def usage(pid: int) -> Usage | None:
    """None where there is no such process, or no /proc."""
    parents = _parents()
    if pid not in parents:
        return None
    family, grown = {pid}, True
    while grown:
        found = {child for child, parent in parents.items() if parent in family} - family
        family |= found
        grown = bool(found)
    parts = [part for member in family if (part := _usage_of(member)) is not None]
    return Usage(sum(part.cpu_s for part in parts), sum(part.resident_bytes for part in parts))


def _parents() -> dict[int, int]:
    parents = {}
    for path in PROC.glob("[0-9]*") if PROC.is_dir() else ():
        fields = _stat(int(path.name))
        if fields:
            parents[int(path.name)] = int(fields[PARENT])
    return parents


def _usage_of(pid: int) -> Usage | None:
    fields = _stat(pid)
    try:
        pages = int((PROC / str(pid) / "statm").read_bytes().split()[1])
    except (OSError, IndexError):
        return None  # it has ended meanwhile
    if not fields:
        return None
    ticks = int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))


def _stat(pid: int) -> list[bytes]:
    """The fields behind the name, which may hold blanks, brackets and half letters; empty where it has ended."""
    try:
        return (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []
