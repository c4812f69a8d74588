"""Checkpoints: only whole ones count, and only the newest few stay."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import pytest
import torch

from training.checkpoint import KEEP, latest_checkpoint, load_checkpoint, load_newest, save_checkpoint


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"step": 7, "model": {"weight": torch.arange(3.0)}})
    state = load_checkpoint(tmp_path / "step-0000007.pt")
    assert state["step"] == 7
    assert state["model"]["weight"].tolist() == [0, 1, 2]


def test_the_latest_is_the_one_of_the_highest_step(tmp_path: Path) -> None:
    for step in (9, 10_000, 200):
        save_checkpoint(tmp_path, {"step": step})
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert latest.name == "step-0010000.pt"


def test_a_folder_without_checkpoints_has_no_latest(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_the_half_of_a_checkpoint_that_a_killed_writer_left_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = save_checkpoint(tmp_path, {"step": 5})

    def killed(state: object, file: IO[bytes]) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, {"step": 6})
    assert len(list(tmp_path.iterdir())) == 2
    assert latest_checkpoint(tmp_path) == whole


def test_old_checkpoints_make_room(tmp_path: Path) -> None:
    for step in range(KEEP + 2):
        save_checkpoint(tmp_path, {"step": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:07d}.pt" for step in range(2, KEEP + 2)]


@pytest.mark.parametrize("damage", ["cut", "zeros", "flipped", "empty"])
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_it_taken(tmp_path: Path, damage: str) -> None:
    for step in (5, 6):
        save_checkpoint(tmp_path, {"step": step, "weight": torch.full((5_000,), float(step))})
    newest = tmp_path / "step-0000006.pt"
    whole = newest.read_bytes()
    middle = len(whole) // 2
    newest.write_bytes(
        {
            "cut": whole[:middle],
            "zeros": whole[:middle] + bytes(len(whole) - middle),
            "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "empty": b"",
        }[damage]
    )
    with pytest.warns(UserWarning, match=r"step-0000006\.pt.*going on from the checkpoint before"):
        state = load_newest(tmp_path)
    assert state is not None
    assert state["step"] == 5
    assert state["weight"].tolist() == [5.0] * 5_000


def test_a_run_none_of_whose_checkpoints_can_be_read_is_not_started_again_silently(tmp_path: Path) -> None:
    (tmp_path / "step-0000001.pt").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="not a complete"),
        pytest.raises(ValueError, match="none of its 1 checkpoints can be read"),
    ):
        load_newest(tmp_path)


def test_a_folder_without_checkpoints_has_no_newest(tmp_path: Path) -> None:
    assert load_newest(tmp_path) is None
