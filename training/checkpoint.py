"""Checkpoints: everything a run needs to go on as if it had never stopped.

Pickle is fine here and nowhere else: a trainer reads only what it wrote itself, and with `weights_only`. A bundle for
serving is made from a checkpoint by `training.export`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

KEEP = 3


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write `state` as step-XXXXXXX.pt by rename, so that a killed writer leaves no half checkpoint under that name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{state['step']:07d}.pt"
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.rename(path)
    for old in sorted(folder.glob("step-*.pt"))[:-KEEP]:
        old.unlink()
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    return max(folder.glob("step-*.pt"), default=None)


def load_checkpoint(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
