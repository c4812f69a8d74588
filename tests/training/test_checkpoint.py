"""Checkpoints: only whole ones count, and only the newest few stay."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from unittest.mock import Mock

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
    assert list(tmp_path.iterdir()) == [whole]
    (tmp_path / "step-0000006.partial").write_bytes(b"half")  # of one that could not even clear up
    assert latest_checkpoint(tmp_path) == whole
    monkeypatch.undo()
    newest = save_checkpoint(tmp_path, {"step": 7})
    assert sorted(tmp_path.iterdir()) == [whole, newest]


@pytest.fixture
def _little_room() -> Iterator[None]:
    """No file of this process grows beyond 64 KiB, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("_little_room")
@pytest.mark.parametrize("numbers", [16_300, 1_000_000])
def test_a_checkpoint_that_the_disk_has_no_room_for_is_named_and_leaves_nothing(tmp_path: Path, numbers: int) -> None:
    with pytest.raises(OSError, match=r"step-0000005\.pt cannot be written: File too large$"):
        save_checkpoint(tmp_path, {"step": 5, "weight": torch.zeros(numbers)})
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_with_a_state_is_not_told_as_a_fault_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "save", Mock(side_effect=RuntimeError("CUDA error")))
    with pytest.raises(RuntimeError, match="CUDA error"):
        save_checkpoint(tmp_path, {"step": 5})


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
