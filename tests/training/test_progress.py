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
    with Progress(tmp_path, Position(), LINE_EVERY, torch.device("cpu"), torch.float32, ALONE) as progress:
        for step, (total, norm) in enumerate([(2.0, float("inf")), (float("nan"), float("nan")), (2.0, 1.0)]):
            position = Position(step=LINE_EVERY - 2 + step, skipped=min(step, 1))
            progress.update(position, {"total": total, "norm": norm, **rest})
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"step {LINE_EVERY} "))
    assert line.endswith("skipped 1 total=2.00 norm=1.00")


def test_the_summary_has_the_speed_and_the_share_of_waiting_of_the_whole_segment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.progress.peak_flops", lambda *_: (2e12, "a guess"))
    with Progress(tmp_path, Position(), 2, torch.device("cpu"), torch.float32, ALONE) as progress:
        for step, (wait_s, time_s) in enumerate([(0.0, 1.0), (0.9, 3.0)], 1):
            values = {"total": 1.0, "lr": 1e-3, "audio_s": 60.0, "wait_s": wait_s, "time_s": time_s, "tflop": 2.0}
            progress.update(Position(step=step), values)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "30 s of audio per second (views of an utterance counted once), 22.5% of the time waiting for data; "
        "1.00 TFLOP/s, 50.0% of the peak (1 × 2.0 TFLOP/s, a guess)"
    )


@pytest.mark.parametrize(
    ("tflop", "told"),
    [(2e-3, "2.00 GFLOP/s, 4.0% of the peak (1 × 50.0 GFLOP/s, a guess)"), (3.0, "3.00 TFLOP/s, 6000.0% of the peak")],
)
def test_a_small_model_has_a_speed_other_than_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tflop: float, told: str
) -> None:
    monkeypatch.setattr("training.progress.peak_flops", lambda *_: (5e10, "a guess"))
    with Progress(tmp_path, Position(), 2, torch.device("cpu"), torch.float32, ALONE) as progress:
        values = {"total": 1.0, "lr": 1e-3, "audio_s": 60.0, "wait_s": 0.0, "time_s": 1.0, "tflop": tflop}
        progress.update(Position(step=1), values)
    assert told in capsys.readouterr().out.splitlines()[-1]


def test_a_segment_without_an_update_has_no_speed(tmp_path: Path) -> None:
    with Progress(tmp_path, Position(), 2, torch.device("cpu"), torch.float32, ALONE) as progress:
        assert progress.summary() == "no update made"
