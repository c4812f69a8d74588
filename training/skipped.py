"""What is kept of an update that was not finite, so that its utterances can be looked at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def dump(folder: Path, step: int, batches: Sequence[dict[str, Any]]) -> Path:
    """Write the batches of update number `step` (their losses, and their utterances' places and paths) as JSON."""
    path = folder / "skipped" / f"step-{step:07d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"step": step, "batches": list(batches)}, indent=1) + "\n", encoding="utf-8")
    return path
