"""Files that a command writes: none may be one that it reads, or writes for another reason."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path


def check_output_files(
    arguments: argparse.Namespace, outputs: Mapping[str, Path | None], inputs: Iterable[Path | None]
) -> None:
    """Exit as for wrong usage where an output (by its option) is an input, which would be lost, or another output."""
    problem = output_problem(outputs, inputs)
    if problem:
        arguments.usage_error(problem)


def output_problem(outputs: Mapping[str, Path | None], inputs: Iterable[Path | None]) -> str:
    """What is wrong with the files that are to be written, "" where nothing is; None is an option that is not given."""
    read = [path for path in inputs if path is not None]
    written: dict[str, Path] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        for other in read:
            if _are_one_file(path, other):
                return f"{option} {path} is the same file as {other}, which is read: it would be overwritten"
        for other_option, other in written.items():
            if _are_one_file(path, other):
                return f"{option} {path} is the same file as that of {other_option}: it would be overwritten"
        written[option] = path
    return ""


def _are_one_file(path: Path, other: Path) -> bool:
    """Also through links, and where neither is there yet. Devices such as /dev/null keep nothing that could be lost."""
    try:
        return path.samefile(other) and path.is_file()
    except OSError:  # one of them is not there, or cannot be seen
        return path.resolve() == other.resolve()
