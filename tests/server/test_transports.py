"""The shipped model over a real socket: within a mode, a recording has one transcript, whichever way it comes.

Skipped where the corpora or the shipped model are absent. Ten recordings with `-m slow`, two by default.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asr_service.audio import AudioLimits, read_file
from asr_service.client import Client
from asr_service.config import EngineSettings, ServerSettings, Settings
from asr_service.engine.load import load_engine
from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR
from asr_service.server.app import ServerThread
from asr_service.streaming.transcribe import transcribe_bytes
from asr_service.types import Mode, RecognitionConfig
from tests.server.messages import transcript

SETTINGS = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0), engine=EngineSettings(max_streams=4))


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Any, Client]]:
    if not (SHIPPED_DIR / DEFAULT_MODEL / "model.safetensors").is_file():
        pytest.skip("no shipped model")
    engine = load_engine(None, settings=SETTINGS.engine)
    with ServerThread(SETTINGS, lambda: engine) as address, Client(address) as client:
        yield engine, client


def recordings(speech_dir: Path, count: int) -> list[Path]:
    """Short ones, spread over the corpora."""
    rows = [json.loads(line) for line in (speech_dir / "dev.jsonl").read_text().splitlines()]
    short = [row for row in rows if 2.0 < row["duration"] < (3.0 if count < 10 else 8.0)]
    return [speech_dir / row["audio_filepath"] for row in short[:: len(short) // count][:count]]


def pieces(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        size = next(sizes)
        yield data[start : start + size]
        start += size


def constant(size: int) -> Iterator[int]:
    while True:
        yield size


def varying(seed: int, most: int) -> Iterator[int]:
    generator = random.Random(seed)
    while True:
        yield generator.randint(0, most)


def check(speech_dir: Path, served: tuple[Any, Client], mode: str, count: int) -> None:
    engine, client = served
    some_words = 0
    for path in recordings(speech_dir, count):
        data = path.read_bytes()
        raw = (read_file(path, limits=AudioLimits())).astype("<f4").tobytes()
        as_raw = {"encoding": "float32", "sample_rate_hertz": 16_000, "mode": mode}
        finals = transcribe_bytes(engine, [data], RecognitionConfig(mode=Mode(mode)), settings=SETTINGS)
        expected = " ".join(final.alternatives[0].text for final in finals)
        got = {
            "unary": client.recognize(path, mode=mode).transcript,
            "one message": transcript(client.stream([data], mode=mode)),
            "20 ms": transcript(client.stream(pieces(raw, constant(1_280)), **as_raw)),
            "20 ms, with interims": transcript(
                client.stream(pieces(raw, constant(1_280)), interim_results=mode == "streaming", **as_raw)
            ),
            "random pieces of the file": transcript(client.stream(pieces(data, varying(3, 2_000)), mode=mode)),
            "random pieces of samples": transcript(client.stream(pieces(raw, varying(5, 20_001)), **as_raw)),
        }
        assert got == dict.fromkeys(got, expected), path
        some_words += len(expected.split())
    assert some_words > count


@pytest.mark.parametrize("mode", ["accurate", "streaming"])
def test_a_recording_has_one_transcript(speech_dir: Path, served: tuple[Any, Client], mode: str) -> None:
    check(speech_dir, served, mode, 2)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["accurate", "streaming"])
def test_ten_recordings_have_one_transcript_each(speech_dir: Path, served: tuple[Any, Client], mode: str) -> None:
    check(speech_dir, served, mode, 10)


def samples(kind: str, count: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(11)
    made = {
        "zero": np.zeros(count),
        "offset": np.full(count, 0.3),
        "highest": np.full(count, 32767 / 32768),
        "lowest": np.full(count, -1.0),
        "noise": generator.normal(0, 0.1, count),
        "clipped noise": np.clip(generator.normal(0, 2.0, count), -1, 1),
    }[kind]
    return made.astype(np.float32)


@pytest.mark.parametrize("kind", ["zero", "offset", "highest", "lowest"])
@pytest.mark.parametrize("mode", ["accurate", "streaming"])
def test_69_samples_without_sound_have_no_words(served: tuple[Any, Client], kind: str, mode: str) -> None:
    _, client = served
    audio = samples(kind, 5 * 16_000).astype("<f4").tobytes()
    assert list(client.stream([audio], encoding="float32", sample_rate_hertz=16_000, mode=mode)) == []


@pytest.mark.parametrize("kind", ["zero", "offset", "highest", "lowest", "noise", "clipped noise"])
@pytest.mark.parametrize("mode", ["accurate", "streaming"])
def test_69_sound_that_is_no_speech_has_next_to_no_words(served: tuple[Any, Client], kind: str, mode: str) -> None:
    _, client = served
    audio = samples(kind, 5 * 16_000).astype("<f4").tobytes()
    text = transcript(client.stream([audio], encoding="float32", sample_rate_hertz=16_000, mode=mode))
    assert len(text.split()) <= 2, text


@pytest.mark.slow
def test_69_ten_minutes_of_digital_zero_have_no_words(served: tuple[Any, Client]) -> None:
    _, client = served
    minute = bytes(60 * 32_000)
    chunks = [minute[start : start + 2**20] for _ in range(10) for start in range(0, len(minute), 2**20)]
    assert list(client.stream(chunks, encoding="linear16", sample_rate_hertz=16_000)) == []


def test_72_recordings_about_a_chunk_long_are_equal_in_pieces_and_whole(
    speech_dir: Path, served: tuple[Any, Client]
) -> None:
    engine, client = served
    pcm = read_file(recordings(speech_dir, 2)[0], limits=AudioLimits())
    chunk = round(engine.info.chunk_s * 16_000)
    as_raw = {"encoding": "float32", "sample_rate_hertz": 16_000}
    for length in (chunk - 1, chunk, chunk + 1, 4 * chunk - 1, 4 * chunk, 4 * chunk + 1):
        part = pcm[8_000 : 8_000 + length].astype("<f4").tobytes()
        whole = transcript(client.stream([part], **as_raw))
        assert transcript(client.stream(pieces(part, varying(length, 5_000)), **as_raw)) == whole
        assert client.recognize(part, mode="streaming", **as_raw).transcript == whole
