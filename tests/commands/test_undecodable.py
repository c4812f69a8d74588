"""Arguments with bytes that the locale cannot decode, and numbers that the wire cannot carry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from asr_service.cli import main
from asr_service.commands.wording import readable
from tests.fake_engine import FakeEngine, say

BAD = "x\udcff"  # as Python has the byte 0xff of an argument


@pytest.fixture(autouse=True)
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (f"{BAD}.wav", "é.wav"):
        with (tmp_path / name).open("wb") as file:
            soundfile.write(file, say(1), 16_000, format="WAV")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("asr_service.engine.load.load_engine", lambda *_, **__: FakeEngine())


def test_names_are_written_readably_and_all_files_are_done() -> None:
    assert main(["transcribe", "--format", "json", "--output", "o", f"{BAD}.wav", "é.wav"]) == 0
    lines = [json.loads(line) for line in Path("o").read_text(encoding="utf-8").splitlines()]
    assert [(line["file"], line["transcript"]) for line in lines] == [(r"x\xff.wav", "one"), ("é.wav", "one")]


@pytest.mark.parametrize("command", ["transcribe", "stream", "demo"])
def test_messages_name_them_readably(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, f"no {BAD}.wav"]) == 1
    assert capsys.readouterr().err == f"asr {command}: no x\\xff.wav: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["transcribe", "é.wav", "--phrase", BAD],
        ["transcribe", "é.wav", "--server", "localhost:1", "--phrase", BAD],
        ["stream", "é.wav", "--phrase", BAD],
        ["eval", "é.wav", "--name", BAD],
    ],
    ids=ascii,
)
def test_text_that_is_none_is_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert f"argument {arguments[-2]}: x\\xff is no text in the encoding of the locale\n" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--server", "localhost:1"]], ids=["in process", "by server"])
@pytest.mark.parametrize("channel", ["99999999999", "9", "-1"])
def test_a_channel_that_no_recording_has_is_wrong_usage(
    channel: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["transcribe", "é.wav", "--channel", channel, *more])
    assert left.value.code == 2
    assert f"--channel is {channel}, must be 1 to 8\n" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "told"), [("a b.wav", "a b.wav"), ("é\n", "é\n"), (BAD, r"x\xff")])
def test_readable(name: str, told: str) -> None:
    assert readable(Path(name)) == readable(name) == told
