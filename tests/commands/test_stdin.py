"""`-` as a recording: stdin, once."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from asr_service.cli import main
from asr_service.commands.option_types import STDIN, recording
from asr_service.config import ServerSettings, Settings
from asr_service.server.app import ServerThread
from tests.fake_engine import FakeEngine, say

COMMANDS = ["transcribe", "stream"]
CUT_BYTES = 1000


def wav(*parts: int | float) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, say(*parts), 16_000, format="WAV")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.wav").write_bytes(wav(1, 2))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("asr_service.engine.load.load_engine", lambda *_, **__: FakeEngine())
    return tmp_path


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where to write what comes from stdin."""
    reader, writer = os.pipe()
    with os.fdopen(reader) as file:
        monkeypatch.setattr(sys, "stdin", file)
        yield writer


def send(writer: int, data: bytes) -> None:
    """All of it, at the pace at which it is read; then the end."""

    def write() -> None:
        with os.fdopen(writer, "wb") as file:
            file.write(data)

    threading.Thread(target=write).start()


@pytest.fixture
def server() -> Iterator[str]:
    with ServerThread(Settings(server=ServerSettings(address="localhost:0", drain_s=0.0)), FakeEngine) as address:
        yield address


@pytest.mark.parametrize("by_server", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
def test_stdin_is_a_recording(
    command: str, by_server: bool, stdin: int, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    send(stdin, wav(1, 2, 3))
    assert main([command, "-", *(["--server", server] if by_server else [])]) == 0
    assert capsys.readouterr().out == "one two three\n"


def test_its_name_is_a_dash_and_it_may_stand_among_files(stdin: int, capsys: pytest.CaptureFixture[str]) -> None:
    send(stdin, wav(4))
    assert main(["transcribe", "a.wav", "-", "--format", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["file"], line["transcript"]) for line in lines] == [("a.wav", "one two"), ("-", "four")]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("data", [b"", b"Dear Sir or Madam, " * 100], ids=["empty", "no audio"])
def test_what_is_wrong_with_it_is_told_by_that_name(
    command: str, data: bytes, stdin: int, capsys: pytest.CaptureFixture[str]
) -> None:
    send(stdin, data)
    assert main([command, "-"]) == 1
    assert capsys.readouterr().err.startswith(f"asr {command}: -: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_without_stdin_says_so(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main([command, "-"]) == 1
    assert capsys.readouterr().err == f"asr {command}: -: stdin is closed\n"


def test_it_is_read_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["transcribe", "-", "a.wav", "-"])
    assert left.value.code == 2
    assert "- is stdin, which can be read once only" in capsys.readouterr().err


def test_a_file_of_that_name_is_one(folder: Path) -> None:
    assert recording("-") == STDIN
    assert recording("./-") == folder / "-"
    assert recording("a.wav") == Path("a.wav")


@pytest.mark.timeout(60)
def test_ctrl_c_ends_a_stdin_that_is_silent_and_what_was_sent_becomes_final(
    stdin: int, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.write(stdin, wav(1, 2, 1.0)[:-CUT_BYTES])  # less than a pipe takes; the rest never comes
    threading.Timer(1.0, signal.raise_signal, [signal.SIGINT]).start()
    assert main(["stream", "-", "--server", server]) == 0
    assert capsys.readouterr().out == "one two\n"
    os.close(stdin)


def test_the_file_that_it_is_read_from_is_not_written(folder: Path) -> None:
    before = (folder / "a.wav").read_bytes()
    command = [sys.executable, "-m", "asr_service.cli", "transcribe", "-", "--output", "a.wav"]
    with (folder / "a.wav").open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert (done.returncode, (folder / "a.wav").read_bytes()) == (2, before)
    assert "--output a.wav is the same file as /dev/stdin, which is read" in done.stderr
