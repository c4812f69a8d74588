"""Audio that is damaged further on: what came before it is recognised, told, and only then the error."""

from __future__ import annotations

import io
import json
from pathlib import Path

import grpc
import numpy as np
import pytest
import soundfile

from asr_service.audio.limits import SNIFF_BYTES
from asr_service.cli import main
from asr_service.config import Settings
from asr_service.engine.interface import Engine
from asr_service.errors import InvalidAudio
from asr_service.streaming.transcribe import stream_bytes
from asr_service.types import Mode, RecognitionConfig
from tests.fake_engine import FakeEngine, say, tone
from tests.server.conftest import Service, Start, until_error
from tests.server.messages import audio, chunks, config, finals

FIRST = {"encoding": 0, "sample_rate_hertz": 0}
# What is damaged begins long after the words, so that nobody minds where a frame ends.
SPEECH = np.concatenate([say(1, 2, 1.5, 3, 0.5), 0.01 * np.random.default_rng(7).standard_normal(64_000)])


def damaged(form: str) -> bytes:
    """A recording whose last third is something else, and long: MP3 is read on after short damage."""
    buffer = io.BytesIO()
    subtype = {"WAV": "FLOAT"}.get(form)
    soundfile.write(buffer, SPEECH.astype(np.float32), 16_000, format=form, subtype=subtype)
    data = bytearray(buffer.getvalue())
    start = len(data) * 2 // 3 // 4 * 4
    data[start:] = b"\xff\x7f\xff\x7f" * ((len(data) - start) // 4 + (SNIFF_BYTES if form == "MP3" else 0))
    return bytes(data)


@pytest.fixture(params=["FLAC", "OGG", "MP3", "WAV"])
def recording(request: pytest.FixtureRequest) -> bytes:
    return damaged(request.param)


@pytest.mark.parametrize("size", [640, 1 << 20])
def test_what_was_said_before_the_damage_is_told_before_the_error(start: Start, recording: bytes, size: int) -> None:
    service = start(FakeEngine(pace=0.02))  # most of the audio still waits when the damage arrives
    got, told = until_error(service.stream([config(FIRST), *chunks(recording, size)]))
    assert finals(got) == ["one two", " three"]
    assert (told.code, told.reason) in {
        (grpc.StatusCode.INVALID_ARGUMENT, reason) for reason in ("INVALID_AUDIO", "NON_FINITE_SAMPLES")
    }


def test_nothing_that_the_client_sends_later_changes_the_end(start: Start) -> None:
    service = start()
    got, told = until_error(service.stream([config(FIRST), audio(damaged("FLAC")), config(), audio(b"more")]))
    assert finals(got) == ["one two", " three"]
    assert told.reason == "INVALID_AUDIO"


def test_audio_that_is_cut_off_is_told_before_the_error(service: Service) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, SPEECH, 16_000, format="FLAC")
    got, told = until_error(service.stream([config(FIRST), *chunks(buffer.getvalue()[:-2_000])]))
    assert finals(got) == ["one two", " three"]
    assert told.reason == "INVALID_AUDIO"


def test_what_is_wrong_only_at_the_very_end_costs_no_words(service: Service) -> None:
    speech = np.concatenate([say(1, 2, 1.92), tone(3, 0.24)])  # the last word is the last FLAC frame
    buffer = io.BytesIO()
    soundfile.write(buffer, speech, 16_000, format="FLAC")
    data = bytearray(buffer.getvalue())
    data[8 + 18] ^= 1  # the MD5 in STREAMINFO
    got, told = until_error(service.stream([config(FIRST), *chunks(bytes(data))]))
    assert finals(got) == ["one two", " three"]
    assert told.reason == "INVALID_AUDIO"


def test_in_process_too(recording: bytes) -> None:
    engine: Engine = FakeEngine()
    engine.start()
    heard: list[str] = []
    updates = stream_bytes(engine, [recording], RecognitionConfig(mode=Mode.STREAMING), settings=Settings())
    try:
        with pytest.raises(InvalidAudio):  # noqa: PT012  # the loop is what raises
            for update in updates:
                heard += [result.alternatives[0].text for result in update.results if result.is_final]
    finally:
        engine.stop()
    assert heard == ["one two", "three"]


@pytest.mark.parametrize("by_server", [False, True])
def test_commands_show_the_words_before_the_damage(
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    by_server: bool,
) -> None:
    monkeypatch.setattr("asr_service.engine.load.load_engine", lambda model, settings: FakeEngine())
    bad, good = tmp_path / "bad.flac", tmp_path / "good.flac"
    bad.write_bytes(damaged("FLAC"))
    soundfile.write(good, say(4), 16_000)
    more = ["--server", service.address] if by_server else []
    assert main(["transcribe", str(bad), str(good), *more]) == 1
    told = capsys.readouterr()
    assert told.out == "one two three\nfour\n"
    assert told.err.startswith(f"asr transcribe: {bad}: FLAC: ") and len(told.err.splitlines()) == 1
    assert main(["transcribe", str(bad), "--format", "json", *more]) == 1
    line = json.loads(capsys.readouterr().out)
    assert line["transcript"] == "one two three" and line["error"].startswith("FLAC: ")
    assert main(["stream", str(bad), *more]) == 1
    told = capsys.readouterr()
    assert told.out == "one two\nthree\n"
    assert f"asr stream: {bad}: FLAC: " in told.err
