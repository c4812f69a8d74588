"""Stdout that cannot be written: one line on stderr and exit code 1, whatever the command."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

from asr_service.cli import main
from asr_service.config import ServerSettings, Settings
from asr_service.server.app import ServerThread
from tests.fake_engine import FakeEngine, say

COMMANDS = [["transcribe", "a.wav"], ["stream", "a.wav"], ["demo", "a.wav"], ["models", "list"], ["--help"]]


@pytest.fixture
def complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with a.wav, and a server for the commands that need one."""
    soundfile.write(tmp_path / "a.wav", say(1, 2, 1.2, 3), 16_000)
    monkeypatch.chdir(tmp_path)
    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0))
    with ServerThread(settings, FakeEngine) as server:
        running = contextlib.nullcontext(SimpleNamespace(address=server, model="tones", start_s=0.0))
        monkeypatch.setattr("asr_service.commands.demo.ServerProcess", lambda _: running)
        monkeypatch.setenv("SERVER", server)
        yield


def run(command: list[str]) -> int:
    by_server = ["--server", os.environ["SERVER"]] if command[0] in {"transcribe", "stream"} else []
    return main([*command, *by_server])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_is_no_fault_of_the_audio(
    command: list[str], complete: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert run(command) == 1
    name = "asr" if command == ["--help"] else f"asr {command[0]}"
    assert capsys.readouterr().err == f"{name}: cannot write to stdout: No space left on device\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_reader_that_has_gone_need_not_be_told(
    command: list[str], complete: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert run(command) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_process_without_stdout_says_so(
    command: list[str], complete: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as without:
        without.setattr(sys, "stdout", None)
        code = run(command)
    assert code == 1
    assert capsys.readouterr().err.endswith(": cannot write to stdout: it is closed\n")


def test_a_reader_of_stderr_that_has_gone_ends_the_command(complete: None, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with monkeypatch.context() as without, os.fdopen(os.dup(writer), "w", buffering=1) as err:
        without.setattr(sys, "stderr", err)
        assert run(["stream", "a.wav", "--show-partials"]) == 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), err.fileno())
    os.close(writer)


@pytest.mark.parametrize(("stdout", "told"), [("/dev/full", "No space left on device"), (None, "it is closed")])
def test_the_interpreter_says_nothing_more_when_it_ends(stdout: str | None, told: str) -> None:
    redirection = f">{stdout}" if stdout else ">&-"
    command = f"exec {sys.executable} -m asr_service.cli models list {redirection}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"asr models: cannot write to stdout: {told}\n")


def test_words_in_a_file_need_no_stdout(complete: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert run(["transcribe", "a.wav", "--output", "words.txt"]) == 0
    assert Path("words.txt").read_text() == "one two three\n"
