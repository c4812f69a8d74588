"""`asr eval`: what was done is kept, and goes on where it was."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands.evaluations import Run, without_times


def test_utterances_that_fail_are_listed_kept_apart_and_tried_again(
    asr: Run, test_set: Path, bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, journal = tmp_path / "out.json", tmp_path / "out.json.journal"
    good = (tmp_path / "3.wav").read_bytes()
    (tmp_path / "3.wav").write_bytes(b"")
    command = ["eval", test_set, "--model", bundle_dir, "--json", out]
    assert asr(*command) == 2
    told = capsys.readouterr()
    assert told.out == "" and not out.exists()
    assert [line.split(": ")[1] for line in told.err.splitlines()] == ["3.wav"]
    assert len(journal.read_text().splitlines()) == 1 + 5
    (tmp_path / "3.wav").write_bytes(good)
    assert asr(*command) == 0
    assert "5 utterances are in" in capsys.readouterr().err
    assert not journal.exists() and len(json.loads(out.read_text())["results"]) == 6


def test_a_journal_of_another_system_is_refused(
    asr: Run, test_set: Path, bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "3.wav").write_bytes(b"")
    command = ["eval", test_set, "--model", bundle_dir, "--journal", tmp_path / "kept"]
    assert asr(*command) == 2
    capsys.readouterr()
    assert asr(*command, "--no-lm") == 1
    assert "language_model was the bundle's, is none" in capsys.readouterr().err
    assert asr(*command, "--every", "2") == 1
    assert "test_set was" in capsys.readouterr().err


def test_a_journal_of_other_code_is_refused(
    asr: Run,
    test_set: Path,
    bundle_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "3.wav").write_bytes(b"")
    command = ["eval", test_set, "--model", bundle_dir, "--journal", tmp_path / "kept"]
    monkeypatch.setattr("asr_service.evaluation.provenance.source", lambda: {"commit": "one", "code": "old"})
    assert asr(*command) == 2
    monkeypatch.setattr("asr_service.evaluation.provenance.source", lambda: {"commit": "two", "code": "old"})
    assert asr(*command) == 2  # another commit, but the same package
    capsys.readouterr()
    monkeypatch.setattr("asr_service.evaluation.provenance.source", lambda: {"commit": "two", "code": "new"})
    assert asr(*command) == 1
    assert "code was old, is new" in capsys.readouterr().err


COMMAND = "import sys; from asr_service.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_command_that_was_killed_goes_on_to_the_same_score(
    asr: Run, test_set: Path, bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out, journal = tmp_path / "whole.json", tmp_path / "out.json", tmp_path / "out.json.journal"
    command = ["eval", str(test_set), "--mode", "streaming", "--model", str(bundle_dir), "--json"]
    killed = subprocess.Popen([sys.executable, "-c", COMMAND, *command, str(out)], stdout=subprocess.DEVNULL)
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        assert killed.poll() is None
        time.sleep(0.001)
    killed.kill()
    assert killed.wait() == -9 and not out.exists()
    assert asr(*command, out) == 0
    assert "utterances are in" in capsys.readouterr().err
    assert asr(*command, whole) == 0
    assert without_times(out) == without_times(whole)
