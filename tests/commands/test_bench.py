"""`asr bench` without a subcommand: figures of what was recognised alone, and plain mistakes in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from asr_service.cli import main
from asr_service.commands import bench as bench_command
from asr_service.config import EngineSettings
from asr_service.engine import load
from tests.fake_engine import FakeEngine, say


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """The engines that were measured: they hear tones. No server is started."""
    made: list[FakeEngine] = []

    def load_engine(_: Path | None, *, settings: EngineSettings) -> FakeEngine:
        made.append(FakeEngine(max_streams=settings.max_streams))
        return made[-1]

    monkeypatch.setattr(load, "load_engine", load_engine)
    monkeypatch.setattr(bench_command, "_start_up", lambda _: None)
    return made


@pytest.fixture
def recording(tmp_path: Path) -> str:
    path = tmp_path / "tones.wav"
    soundfile.write(path, say(1, 0.2, 2), 16_000)
    return str(path)


def test_the_engine_has_room_for_all_streams(
    engines: list[FakeEngine], recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--audio", recording, "--rounds", "1", "--streams", "1", "40"]) == 0
    assert [engine.info.max_streams for engine in engines] == [40]
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split(" s a ")[0].split()[:3] for line in lines] == [
        ["accurate", "x", "1"],
        ["streaming", "x", "1"],
        ["streaming", "x", "40"],
    ]


def test_without_streams_the_accurate_mode_is_measured(
    engines: list[FakeEngine], recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--audio", recording, "--rounds", "1", "--streams"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["accurate"]


def test_a_stream_that_fails_is_told_and_has_no_figure(
    engines: list[FakeEngine], recording: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load, "load_engine", lambda *_, **__: FakeEngine(fail_at_s=0.2))
    assert main(["bench", "--audio", recording, "--rounds", "1", "--streams", "2"]) == 1
    told = capsys.readouterr()
    assert told.err == "asr bench: scripted failure\n"
    assert "s a second of audio" not in told.out


@pytest.mark.parametrize("name", ["none.wav", "empty.wav"])
def test_a_recording_that_says_nothing_is_named_before_a_server_is_started(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "empty.wav", say(), 16_000)
    monkeypatch.setattr(bench_command, "ServerProcess", lambda _: pytest.fail("a server was started"))
    assert main(["bench", "--audio", str(tmp_path / name)]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("asr bench: ") and name in told.err
    assert told.out == ""


def test_a_recording_that_is_not_there_is_told_as_by_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--audio", "nope.wav"]) == 1
    assert capsys.readouterr().err == "asr bench: nope.wav: No such file or directory\n"


def test_a_server_that_does_not_start_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: Path | None) -> None:
        raise RuntimeError("the server did not start:\nno model")

    monkeypatch.setattr(bench_command, "ServerProcess", broken)
    assert main(["bench"]) == 1
    assert capsys.readouterr().err == "asr bench: the server did not start:\nno model\n"


@pytest.mark.parametrize("options", [["--rounds", "0"], ["--streams", "4", "0"]])
def test_numbers_are_positive(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["bench", *options])
    assert left.value.code == 2
    assert f"argument {options[0]}: must be 1 or more, not 0" in capsys.readouterr().err
