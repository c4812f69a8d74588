"""Where results start and end, as the API reference says."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from asr_service.audio import StreamDecoder
from asr_service.config import EndpointingSettings, EngineSettings, Settings
from asr_service.engine.engine import BatchingEngine
from asr_service.model.bundle import Bundle
from asr_service.streaming.audio_limits import stream_limits
from asr_service.streaming.session import Session
from asr_service.types import AudioEncoding, AudioFormat, Mode, RecognitionConfig, RecognitionResult
from tests.engine.listening import RATE, babble, run

NEWEST_S = 0.3  # that may belong to what follows a flush


@pytest.fixture(scope="module")
def engine(tiny_bundle: Bundle) -> Iterator[BatchingEngine]:
    engine = BatchingEngine(tiny_bundle, EngineSettings(max_streams=1, precision="fp32"))
    engine.start()
    yield engine
    engine.stop()


def finals_of_two_flushes(
    engine: BatchingEngine, pcm: np.ndarray, rate_hz: int, channels: int
) -> list[RecognitionResult]:
    settings, woken = Settings(), threading.Event()
    audio = AudioFormat(AudioEncoding.LINEAR16, rate_hz, channels)
    session = Session(
        engine,
        RecognitionConfig(audio=audio, mode=Mode.ACCURATE),
        decoder=StreamDecoder(audio, limits=stream_limits(settings.audio, settings.stream), channel=None),
        wake=woken.set,
        settings=settings.stream,
        endpointing=settings.endpointing,
    )
    data = (np.repeat(pcm[:, None], channels, axis=1) * 32_767).astype("<i2").tobytes()
    for _ in range(2):
        for block in itertools.chain(session.decode(data), session.decode_pending()):
            session.feed(block)
        session.flush()
    session.finish()
    finals: list[RecognitionResult] = []
    while session.end is None or session.has_updates:
        assert session.has_updates or woken.wait(60)
        woken.clear()
        session.collect()
        while (update := session.take()) is not None:
            finals += [result for result in update.results if result.is_final]
    session.close()
    return finals


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("length_s", [1.05, 1.1])
def test_a_flush_leaves_no_more_than_the_newest_audio_to_what_follows(
    engine: BatchingEngine, length_s: float, rate_hz: int, channels: int
) -> None:
    seconds = np.arange(int(length_s * rate_hz)) / rate_hz
    pcm = babble(length_s, 8)[np.minimum((seconds * RATE).astype(int), int(length_s * RATE) - 1)]
    first, *_ = finals_of_two_flushes(engine, pcm, rate_hz, channels)
    assert length_s - NEWEST_S <= first.end_s <= length_s


@pytest.mark.parametrize("mode", list(Mode))
def test_most_of_a_long_silence_between_two_finals_belongs_to_neither(engine: BatchingEngine, mode: Mode) -> None:
    silence_s = 3 * EndpointingSettings().empty_silence_s
    spoken = babble(2.0, 8)
    finals = run(engine, mode, np.concatenate([spoken, np.zeros(int(silence_s * RATE), np.float32), spoken])).finals()
    gaps_s = [after.start_s - before.end_s for before, after in itertools.pairwise(finals)]
    assert max(gaps_s) > silence_s / 2 and min(gaps_s) >= 0.0
