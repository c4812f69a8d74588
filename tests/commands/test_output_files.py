"""Files that the commands write are none that they read: wrong usage, before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asr_service.cli import main
from asr_service.commands.output_files import output_problem
from tests.commands.evaluations import Run

TRANSCRIBE = ["transcribe", "b.wav", "a.wav", "--output"]
REFUSED = [
    [*TRANSCRIBE, "a.wav"],
    [*TRANSCRIBE, "link.wav"],
    [*TRANSCRIBE, "hard.wav"],
    [*TRANSCRIBE, "sub/../a.wav"],
    ["transcribe", "link.wav", "--output", "a.wav"],
    ["transcribe", "b.wav", "--config", "a.wav", "--output", "a.wav"],
    ["eval", "a.wav", "--json", "a.wav"],
    ["eval", "a.wav", "--html", "link.wav"],
    ["eval", "a.wav", "--journal", "a.wav"],
    ["eval", "b.wav", "--hyp", "a.wav", "--json", "a.wav"],
    ["eval", "b.wav", "--hyp", "a.wav", "--html", "a.wav"],
    ["bench", "live", "a.wav", "--json", "a.wav"],
    ["bench", "live", "a.wav", "--png", "a.wav"],
    ["compare", "b.wav", "a.wav", "--html", "a.wav"],
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"precious")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.wav").symlink_to("a.wav")
    os.link(tmp_path / "a.wav", tmp_path / "hard.wav")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_a_file_that_is_read_is_not_written(
    arguments: list[str], folder: Path, asr: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = asr(*arguments)
    except SystemExit as left:
        code = left.code  # type: ignore[assignment]
    told = capsys.readouterr().err
    assert (code, (folder / "a.wav").read_bytes()) == (2, b"precious")
    assert f"{arguments[-2]} {arguments[-1]} is the same file as" in told


def test_two_outputs_are_not_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["eval", "a.wav", "--json", "new", "--html", "sub/../new"])
    assert "--html sub/../new is the same file as that of --json" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["eval", "new.journal", "--json", "new"])
    assert "--journal new.journal is the same file as new.journal, which is read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "read"),
    [("new.txt", "a.wav"), ("b.wav", "a.wav"), ("/dev/null", "/dev/null"), ("new.txt", "missing.wav")],
)
def test_other_files_are_written(output: str, read: str) -> None:
    assert output_problem({"--output": Path(output), "--html": None}, [Path(read), None]) == ""
