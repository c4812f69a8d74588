"""The curve of a run: one JSON line an update in metrics.jsonl, and the same for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

METRICS_FILE = "metrics.jsonl"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run, in order; a last line that a killed process left unfinished is not one.

    Raises ValueError, which names the line, for another that is no row.
    """
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_row(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise ValueError(f"{where}: not a row of a run's curve: {line[:80]!r}")
    return row


class MetricsLog:
    """Appends rows; every row has a `step`, the number of updates made.

    Opening it at a checkpoint's step takes back what a killed run had written after that checkpoint, so the file is
    always the curve of one run.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # seconds to import, and only training processes need it

        folder.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(folder) if row["step"] <= step]
        path = folder / METRICS_FILE
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        partial.rename(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)  # a line reaches the system whole, or not at all
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Append a row of `kind` train or dev."""
        row = {"kind": kind, "step": step} | {name: float(f"{value:.7g}") for name, value in values.items()}
        self._file.write(json.dumps(row) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()
