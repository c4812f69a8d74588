"""What a person sees of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.distributed import ALONE
from training.progress import LINE_EVERY, Progress
from training.sampler import Position


def test_a_skipped_update_is_not_in_the_running_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest = {"lr": 1e-3, "audio_s": 60.0, "wait_s": 0.1, "time_s": 1.0, "tflop": 0.5}
    with Progress(tmp_path, Position(), LINE_EVERY, torch.device("cpu"), ALONE) as progress:
        for step, (total, norm) in enumerate([(2.0, float("inf")), (float("nan"), float("nan")), (2.0, 1.0)]):
            position = Position(step=LINE_EVERY - 2 + step, skipped=min(step, 1))
            progress.update(position, {"total": total, "norm": norm, **rest})
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"step {LINE_EVERY} "))
    assert line.endswith("skipped 1 total=2.00 norm=1.00")
