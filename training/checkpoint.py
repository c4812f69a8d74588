"""Checkpoints: everything a run needs to go on as if it had never stopped.

Pickle is fine here and nowhere else: a trainer reads only what it wrote itself, and with `weights_only`. A bundle for
serving is made from a checkpoint by `training.export`.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

KEEP = 3


def write_durably(path: Path, state: dict[str, Any]) -> None:
    """Write `path`, step-….pt, whole or not at all, whenever the process or the machine dies.

    The bytes reach the disk before the name does (fsync, rename), and the name before this returns (fsync of the
    folder): a file under its final name is complete. What a writer that was killed left there is removed. Raises
    OSError that names the file.
    """
    for left in path.parent.glob("step-*.partial"):
        left.unlink()
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except (OSError, RuntimeError) as error:
        # A disk that is full is a RuntimeError of torch's archive, which closes after the error of the file.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(f"{path} cannot be written: {cause.strerror or cause}") from cause
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write `state` as step-XXXXXXX.pt and remove all but the newest `KEEP`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{state['step']:07d}.pt"
    write_durably(path, state)
    for old in sorted(folder.glob("step-*.pt"))[:-KEEP]:
        old.unlink()
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint by name, or None; `load_newest` also looks whether it can be read."""
    return max(folder.glob("step-*.pt"), default=None)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises ValueError when the file is cut short or does not have the bytes that were written: torch.load itself does
    not look at the checksums.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{path}: the checksum of {damaged} does not fit")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: not a complete checkpoint: {error}") from error
    return state


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; warns of each newer one that cannot.

    Raises ValueError when there are checkpoints and none can be read: to start again from nothing is for a person to
    decide.
    """
    paths = sorted(folder.glob("step-*.pt"), reverse=True)
    for path in paths:
        try:
            return load_checkpoint(path)
        except ValueError as error:
            warnings.warn(f"{error}; going on from the checkpoint before", stacklevel=2)
    if paths:
        raise ValueError(f"{folder}: none of its {len(paths)} checkpoints can be read; move them away to start again")
    return None
