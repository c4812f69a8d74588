"""The command line, with the tone engine in place of the model: what goes where, and what the exit code says."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_service.cli import COMMANDS, build_parser, main
from asr_service.config import ServerSettings, Settings
from asr_service.server.app import ServerThread
from asr_service.types import PhraseHint
from tests.fake_engine import FakeEngine, say

Write = Callable[..., str]


FEATURES = ("word_time_offsets", "word_confidence", "phrase_hints")


@pytest.fixture(autouse=True)
def tone_engine(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """The engines that the commands make in their own process."""
    made: list[FakeEngine] = []

    def load(model: object, settings: object) -> FakeEngine:
        made.append(FakeEngine(features=FEATURES))
        return made[-1]

    monkeypatch.setattr("asr_service.engine.load.load_engine", load)
    return made


@pytest.fixture
def recording(tmp_path: Path) -> Write:
    def write(name: str, *parts: int | float, rate_hz: int = 16_000, form: str = "WAV") -> str:
        path = tmp_path / name
        soundfile.write(path, say(*parts, rate_hz=rate_hz), rate_hz, format=form)
        return str(path)

    return write


@pytest.fixture
def server_engine() -> FakeEngine:
    return FakeEngine(features=FEATURES)


@pytest.fixture
def server(server_engine: FakeEngine) -> Iterator[str]:
    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0))
    with ServerThread(settings, lambda: server_engine) as address:
        yield address


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"asr {project['version']}\n"


@pytest.mark.parametrize("by_server", [False, True])
@pytest.mark.parametrize("mode", ["accurate", "streaming"])
def test_one_line_of_text_for_each_file_in_order(
    recording: Write, server: str, capsys: pytest.CaptureFixture[str], by_server: bool, mode: str
) -> None:
    files = [recording("b.wav", 1, 2, 1.5, 3), recording("a.flac", 4, form="FLAC"), recording("quiet.wav", 1.0)]
    more = ["--server", server] if by_server else []
    assert main(["transcribe", *files, "--mode", mode, *more]) == 0
    told = capsys.readouterr()
    assert told.out == "one two three\nfour\n\n"
    assert told.err == ""


@pytest.mark.parametrize("by_server", [False, True])
def test_bad_files_are_named_and_the_others_still_done(
    recording: Write, tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str], by_server: bool
) -> None:
    empty, text, missing = tmp_path / "empty.wav", tmp_path / "notes.txt", tmp_path / "missing.wav"
    empty.write_bytes(b"")
    text.write_text("Dear Sir or Madam, " * 100)
    truncated = tmp_path / "truncated.wav"
    truncated.write_bytes(Path(recording("whole.wav", 1)).read_bytes()[:20])
    bad = [str(path) for path in (empty, text, missing, tmp_path, truncated)]
    files = [bad[0], recording("a.wav", 1), *bad[1:], recording("b.wav", 2)]
    more = ["--server", server] if by_server else []
    assert main(["transcribe", *files, *more]) == 1
    told = capsys.readouterr()
    assert told.out == "one\ntwo\n"
    lines = told.err.splitlines()
    assert len(lines) == len(bad)
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(f"asr transcribe: {path}: ") and len(line) > len(f"asr transcribe: {path}: ") + 5


@pytest.mark.parametrize("by_server", [False, True])
def test_messages_name_options_of_the_command_line(
    recording: Write, tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str], by_server: bool
) -> None:
    more = ["--server", server] if by_server else []
    raw = tmp_path / "samples.raw"
    raw.write_bytes(b"Dear Sir or Madam, " * 100)
    assert main(["transcribe", str(raw), *more]) == 1
    told = capsys.readouterr().err
    assert "the audio has no header that is known" in told and "raw samples need a header" in told
    assert "config." not in told
    assert main(["transcribe", recording("a.wav", 1), "--channel", "2", *more]) == 1
    assert capsys.readouterr().err.endswith(": --channel is 2, but the audio has 1 channel\n")


def test_json_is_one_object_a_line(recording: Write, capsys: pytest.CaptureFixture[str]) -> None:
    files = [recording("a.wav", 1, 2, 1.5, 3), recording("b.wav", 4)]
    assert main(["transcribe", *files, "--format", "json"]) == 0
    first, second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (first["file"], first["transcript"], second["transcript"]) == (files[0], "one two three", "four")
    word = first["results"][1]["words"][0]
    assert (word["word"], word["start_s"], word["confidence"]) == ("three", pytest.approx(2.16, abs=0.1), 0.9)


def test_channel_of_a_recording_is_the_users_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "both.wav"
    soundfile.write(path, np.stack([say(1, 2), say(3, 4)], axis=1), 16_000)
    for channel, expected in (("1", "one two"), ("2", "three four")):
        assert main(["transcribe", str(path), "--channel", channel]) == 0
        assert capsys.readouterr().out == expected + "\n"
    assert main(["transcribe", str(path), "--channel", "3"]) == 1


def test_output_goes_to_the_file_named(recording: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "words.vtt"
    assert main(["transcribe", recording("a.wav", 0.48, 1, 2), "--format", "vtt", "--output", str(target)]) == 0
    assert capsys.readouterr().out == ""
    assert target.read_text().splitlines() == ["WEBVTT", "", "00:00:00.480 --> 00:00:01.480", "one two", ""]
    assert main(["transcribe", recording("a.wav", 1), "--output", str(tmp_path / "no" / "dir.txt")]) == 1
    assert "dir.txt" in capsys.readouterr().err


@pytest.mark.parametrize("by_server", [False, True])
@pytest.mark.parametrize("command", ["transcribe", "stream"])
def test_phrases_and_their_boost_reach_the_engine(
    recording: Write,
    server: str,
    server_engine: FakeEngine,
    tone_engine: list[FakeEngine],
    command: str,
    by_server: bool,
) -> None:
    file, more = recording("a.wav", 1), ["--server", server] if by_server else []
    default = (10.0, 8.75)  # the second has 7 letters
    for boost, expected in ((["--boost", "2.5"], (2.5, 2.5)), (["--boost", "0"], default), ([], default)):
        assert main([command, file, "--phrase", "Ebionites", "--phrase", "new-wave", *boost, *more]) == 0
        (engine,) = [server_engine] if by_server else tone_engine[-1:]
        assert engine.hinted[-1] == (PhraseHint("ebionites", expected[0]), PhraseHint("new wave", expected[1]))


@pytest.mark.parametrize("by_server", [False, True])
def test_a_phrase_that_cannot_be_is_told_by_its_option(
    recording: Write, server: str, capsys: pytest.CaptureFixture[str], by_server: bool
) -> None:
    more = ["--server", server] if by_server else []
    for command in ("transcribe", "stream"):
        assert main([command, recording("a.wav", 1), "--phrase", "fine", "--phrase", "channel 4", *more]) == 1
        told = capsys.readouterr()
        assert "--phrase number 2 is 'channel 4'" in told.err and "config." not in told.err
        assert told.out == ""


def test_phrases_are_refused_where_the_model_does_not_offer_them(
    recording: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("asr_service.engine.load.load_engine", lambda model, settings: FakeEngine())
    for command in ("transcribe", "stream"):
        assert main([command, recording("a.wav", 1), "--phrase", "one"]) == 1
        told = capsys.readouterr().err
        assert "--phrase: model tones does not offer phrase" in told and "config." not in told


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["transcribe"],
        ["transcribe", "a.wav", "b.wav", "--format", "srt"],
        ["transcribe", "a.wav", "--mode", "best"],
        ["transcribe", "a.wav", "--server", "localhost:1", "--model", "x"],
        ["transcribe", "a.wav", "--server", "localhost:1", "--config", "x"],
        ["transcribe", "a.wav", "--channel", "-1"],
        ["stream", "a.wav", "--mode", "accurate", "--show-partials"],
        ["stream", "--mic", "--simulate-realtime"],
        ["transcribe", "a.wav", "--tls"],
        ["transcribe", "a.wav", "--server", "localhost:1", "--ca", "ca.pem"],
        ["stream", "a.wav", "--tls"],
        ["eval", "dev.jsonl", "--tls"],
        ["eval", "dev.jsonl", "--metadata", "a=b"],
        ["eval", "dev.jsonl", "--server", "localhost:1", "--ca", "ca.pem"],
        ["stream", "a.wav", "--metadata", "a=b"],
        ["transcribe", "a.wav", "--boost", "2"],
        ["transcribe", "a.wav", "--phrase", "a", "--boost", "20.5"],
        ["transcribe", "a.wav", "--phrase", "a", "--boost", "-1"],
        ["stream", "a.wav", "--phrase", "a", "--boost", "nan"],
        ["stream", "a.wav", "--boost", "2"],
        ["stream"],
        ["stream", "a.wav", "--mic"],
        ["serve", "--max-streams", "many"],
        ["translate", "a.wav"],
    ],
)
def test_wrong_usage_exits_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert told.out == "" and "usage:" in told.err


def test_bad_settings_file_is_named(recording: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "asr.toml"
    path.write_text("[engine]\nmax_streams = 0\n")
    for command in (["serve"], ["transcribe", recording("a.wav", 1)], ["stream", recording("b.wav", 1)]):
        assert main([*command, "--config", str(path)]) == 1
        told = capsys.readouterr().err
        assert str(path) in told and "engine.max_streams" in told


@pytest.mark.parametrize("by_server", [False, True])
def test_stream_shows_partials_on_stderr_and_finals_on_stdout(
    recording: Write, server: str, capsys: pytest.CaptureFixture[str], by_server: bool
) -> None:
    more = ["--server", server] if by_server else []
    file = recording("a.wav", 1, 2, 3, 1.2, 4)
    assert main(["stream", file, "--simulate-realtime", "--show-partials", *more]) == 0
    told = capsys.readouterr()
    assert told.out == "one two three\nfour\n"
    lines = told.err.splitlines()
    assert "... one|" in " ".join(lines) or "... one two|" in " ".join(lines)
    assert [line.partition(":")[0] for line in lines[-2:]] == [
        "first partial after its first word began",
        "final after its last word ended",
    ]
    assert "(2 utterances)" in lines[-1]


def test_stream_as_fast_as_possible_tells_the_real_time_factor(
    recording: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stream", recording("a.wav", 1, 2, 3, rate_hz=44_100)]) == 0
    told = capsys.readouterr()
    assert told.out == "one two three\n"
    assert "real-time factor" in told.err and "..." not in told.err


@pytest.mark.parametrize("by_server", [False, True])
def test_stream_of_a_bad_file_names_it(
    tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str], by_server: bool
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear Sir or Madam, " * 100)
    more = ["--server", server] if by_server else []
    for bad in (path, tmp_path / "missing.wav"):
        assert main(["stream", str(bad), *more]) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert f"asr stream: {bad}: " in told.err


def test_microphone_without_its_package_says_what_to_install(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["stream", "--mic", "--server", server]) == 1
    assert "pip install sounddevice" in capsys.readouterr().err


def test_server_that_is_not_there_is_an_error_that_names_it(
    recording: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", recording("a.wav", 1), "--server", "localhost:1"]) == 1
    assert "a.wav" in capsys.readouterr().err


def test_each_command_registers_itself_and_no_option_is_new() -> None:
    """The command line is part of the product: an option is added here on purpose, or not at all."""
    parser = build_parser()
    text = io.StringIO()
    parser.print_help(text)
    assert "transcribe" in text.getvalue()
    (commands,) = [action.choices for action in parser._actions if action.choices]
    options = {
        name: sorted(option for action in command._actions for option in action.option_strings if option != "-h")
        for name, command in commands.items()  # type: ignore[union-attr]
    }
    assert options["serve"] == [
        *("--address", "--config", "--help", "--max-streams", "--model", "--share-port", "--workers"),
    ]
    assert options["transcribe"] == [
        *("--boost", "--ca", "--channel", "--config", "--format", "--help", "--metadata", "--mode", "--model"),
        *("--output", "--phrase", "--server", "--tls"),
    ]
    assert options["stream"] == [
        *("--boost", "--ca", "--config", "--help", "--metadata", "--mic", "--mode", "--model", "--phrase"),
        *("--server", "--show-partials", "--simulate-realtime", "--tls"),
    ]
    assert len(options) == len(COMMANDS)


def test_help_imports_neither_torch_nor_grpc() -> None:
    code = (
        "import sys; from asr_service.cli import build_parser; build_parser();"
        "sys.exit(bool({'torch', 'grpc', 'av', 'soxr'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
