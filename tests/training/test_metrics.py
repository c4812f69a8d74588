"""The curve of a run, for people: TensorBoard shows what metrics.jsonl has."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.metrics import MetricsLog, read_metrics


@pytest.mark.filterwarnings("ignore")  # of TensorBoard itself
def test_tensorboard_has_the_rows_of_a_run_that_was_killed_and_went_on(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.write("train", step, {"total": 2.0**-step, "lr": 0.5})
    with MetricsLog(tmp_path, 2) as log:  # the checkpoint was of step 2
        log.write("train", 3, {"total": 0.25, "lr": 0.5})
        log.write("dev", 3, {"total": 0.75})
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    shown = {name: [(event.step, event.value) for event in board.Scalars(name)] for name in board.Tags()["scalars"]}
    assert set(shown) == {"train/total", "train/lr", "dev/total"}
    rows = read_metrics(tmp_path)
    for kind in ("train", "dev"):
        for name in ("total", "lr"):
            kept = [(row["step"], row[name]) for row in rows if row["kind"] == kind and name in row]
            assert shown.get(f"{kind}/{name}", []) == kept


def test_a_row_that_was_cut_short_is_left_out_at_the_end_and_named_elsewhere(tmp_path: Path) -> None:
    row = '{"kind": "train", "step": 1}\n'
    file = tmp_path / "metrics.jsonl"
    file.write_text(row + row[:9])
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]
    for damaged in ("\0\0\0\n", row[:9] + row, "[1]\n", '{"kind": "train"}\n'):
        file.write_text(row + damaged + row)
        with pytest.raises(ValueError, match=r"metrics\.jsonl:2: not a row"):
            read_metrics(tmp_path)
