"""A run that is killed with -9 in mid-epoch and started again is the run that was never killed."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.training.command import Command, make_speech
from training.checkpoint import latest_checkpoint, load_checkpoint
from training.metrics import read_metrics
from training.train import main

LOSSES = ("total", "ctc", "attention", "norm", "lr")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    speech = make_speech(tmp_path / "speech")
    monkeypatch.setenv("ASR_SPEECH_DIR", str(speech))
    return Command(speech, tmp_path)


def curve(rows: list[dict[str, Any]], kind: str) -> list[tuple[int, dict[str, float]]]:
    return [(row["step"], {name: row[name] for name in LOSSES if name in row}) for row in rows if row["kind"] == kind]


@pytest.mark.timeout(300)  # of which five seconds are work, on a core of its own
def test_the_curve_of_a_run_killed_in_mid_epoch_is_that_of_one_that_went_through(command: Command) -> None:
    main(command.arguments("straight", "--evaluate-every", "10"))
    straight = command.folder / "straight" / "tiny"
    expected = read_metrics(straight)
    assert (straight / "curves.png").stat().st_size > 10_000
    assert (straight / "attention.png").stat().st_size > 5_000

    killed = command.folder / "killed" / "tiny"
    arguments = command.arguments("killed", "--evaluate-every", "10", "--save-minutes", "0.0005")
    log = command.folder / "log"
    process = command.start(["-m", "training.train", *arguments], log=log)
    deadline = time.monotonic() + 100
    while len(read_metrics(killed)) < 12 or latest_checkpoint(killed) is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    path = latest_checkpoint(killed)
    assert path is not None
    position = load_checkpoint(path)["position"]
    assert (position["epoch"], position["step"]) == (0, position["batch"]), "not in mid-epoch"
    assert position["step"] <= read_metrics(killed)[-1]["step"] < 40

    main(arguments)
    rows = read_metrics(killed)
    for kind in ("train", "dev"):
        went_through, resumed = curve(expected, kind), curve(rows, kind)
        assert [step for step, _ in resumed] == [step for step, _ in went_through]
        for (_, a), (_, b) in zip(went_through, resumed, strict=True):
            assert a == pytest.approx(b, abs=1e-4)
