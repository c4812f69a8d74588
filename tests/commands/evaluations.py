"""What tests of `asr eval` share: hypotheses that they write, and evaluations that they read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., int]


def hypotheses(path: Path, *rows: tuple[str, str]) -> Path:
    path.write_text("".join(f"{json.dumps({'id': name, 'text': text})}\n" for name, text in rows))
    return path


def without_times(path: Path) -> Any:
    """An evaluation less what differs from run to run: its times, and when and how it was made."""
    document = json.loads(path.read_text())
    for name in ("about", "rtfx", "latency", "system"):
        del document[name]
    for row in document["results"]:
        del row["timing"]
    return document
