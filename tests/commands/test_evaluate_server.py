"""`asr eval --server`: the same score as in process, and a microphone's pace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr_service.evaluation.by_server import ByServer
from asr_service.evaluation.output import Output
from asr_service.evaluation.reference import Reference
from tests.commands.evaluations import Run, without_times


@pytest.mark.parametrize("mode", ["accurate", "streaming"])
def test_in_process_and_through_a_server_the_score_is_the_same(
    asr: Run, test_set: Path, bundle_dir: Path, tmp_path: Path, server: str, mode: str
) -> None:
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    assert asr("eval", test_set, "--mode", mode, "--model", bundle_dir, "--json", here) == 0
    assert asr("eval", test_set, "--mode", mode, "--server", server, "--json", there) == 0
    ours, theirs = without_times(here), without_times(there)
    for row in [*ours["results"], *theirs["results"]]:
        del row["words"]  # their times are milliseconds on the wire
    assert ours == theirs
    hashes = {json.loads(path.read_text())["about"]["model_hash"] for path in (here, there)}
    assert len(hashes) == 1 and None not in hashes
    assert any(row["hypothesis"] for row in ours["results"])


def test_a_server_that_is_not_there_is_one_line(asr: Run, test_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asr("eval", test_set, "--server", "localhost:1") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_through_a_server_at_a_microphones_pace(
    asr: Run, test_set: Path, server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paced: list[bool] = []
    recognise = ByServer.recognise

    def note(self: ByServer, reference: Reference) -> Output:
        paced.append(self._system.real_time)
        return recognise(self, reference)

    monkeypatch.setattr(ByServer, "recognise", note)
    assert asr("eval", test_set, "--server", server, "--mode", "streaming", "--real-time", "--every", "5") == 0
    assert paced == [True, True]
    told = capsys.readouterr().out
    assert "last final after the audio ended" in told and "RTFx" not in told and "without computation" not in told
