"""Recognition without a server: the bytes' split never matters, finals are told apart from interims."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr_service.config import Settings, StreamSettings
from asr_service.errors import EngineFailure, InvalidAudio, NoCapacity
from asr_service.streaming import transcribe
from asr_service.streaming.transcribe import stream_bytes, transcribe_bytes, transcribe_pcm
from asr_service.types import AudioEncoding, AudioFormat, EndpointingConfig, Mode, RecognitionConfig
from tests.fake_engine import FakeEngine, linear16, say

CONFIG = RecognitionConfig(
    audio=AudioFormat(AudioEncoding.LINEAR16, 16_000, 1),
    mode=Mode.STREAMING,
    endpointing=EndpointingConfig(min_trailing_silence_s=0.4),
)
SPEECH = say(0.5, 1, 2, 3, 1.0, 4, 5, 1.0, 6)
EXPECTED = ["one two three", "four five", "six"]


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeEngine]:
    made = FakeEngine()
    made.start()
    yield made
    made.stop()


def texts(results: list) -> list[str]:  # type: ignore[type-arg]
    return [result.alternatives[0].text for result in results]


def live(engine: FakeEngine, data: bytes) -> Iterator[bytes]:
    """20 ms chunks, each when the engine has done the one before, so that no interim is overtaken."""
    for start in range(0, len(data), 640):
        yield data[start : start + 640]
        while engine.queued_samples:
            time.sleep(0.0005)


def test_samples_and_bytes_give_the_same_finals(engine: FakeEngine) -> None:
    assert texts(transcribe_pcm(engine, SPEECH, CONFIG)) == EXPECTED
    assert texts(transcribe_bytes(engine, [linear16(SPEECH)], CONFIG)) == EXPECTED


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 9_001), max_size=30))
def test_any_split_of_the_bytes_gives_the_same_results(engine: FakeEngine, sizes: list[int]) -> None:
    data = linear16(SPEECH)
    edges = [0, *itertools.accumulate(sizes), len(data)]
    chunks = [data[start : max(start, end)] for start, end in itertools.pairwise(edges)]
    whole = transcribe_bytes(engine, [data], CONFIG)
    assert texts(whole) == EXPECTED
    assert transcribe_bytes(engine, chunks, CONFIG) == whole


def test_interims_come_before_the_final_they_lead_to(engine: FakeEngine) -> None:
    config = dataclasses.replace(CONFIG, interim_results=True)
    updates = list(stream_bytes(engine, live(engine, linear16(SPEECH)), config))
    assert any(update.interim_of == 0 for update in updates)
    last_final = -1
    for update in updates:
        for result in update.results:
            assert result.utterance_index == last_final + 1
            assert (result.stability == 0.0) == result.is_final
            assert 0.0 <= result.stability <= 1.0
        if update.interim_of is None and update.results:
            last_final += 1


def test_much_more_audio_than_the_bound_never_queues_more_than_the_bound() -> None:
    engine = FakeEngine(pace=0.002)
    engine.start()
    settings = Settings(stream=StreamSettings(max_buffered_s=4.0))
    try:
        long = say(*([1, 1.0] * 60))
        assert len(transcribe_bytes(engine, [linear16(long)], CONFIG, settings=settings)) == 60
        assert engine.most_queued_s <= 4.0
    finally:
        engine.stop()


def test_a_stream_that_has_ended_takes_no_more_of_an_endless_recording(engine: FakeEngine) -> None:
    config = dataclasses.replace(CONFIG, single_utterance=True)
    chunks = itertools.repeat(linear16(say(1, 1.0)), 1000)
    assert texts(transcribe_bytes(engine, chunks, config)) == ["one"]
    assert len(list(chunks)) > 900


class Unanswering(FakeEngine):
    """Answers nothing until it has been looked at three times, or is found to have stopped."""

    stops = False
    looks = 0

    @property
    def healthy(self) -> bool:
        self.looks += 1
        if self.looks == 3 and not self.stops:
            self.gate.set()
        return self.looks < 3 or not self.stops

    @healthy.setter
    def healthy(self, _: bool) -> None: ...


@pytest.mark.parametrize("stops", [False, True])
def test_a_slow_engine_is_waited_for_and_one_that_has_stopped_is_not(
    monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    monkeypatch.setattr(transcribe, "WAKE_CHECK_S", 0.01)
    engine = Unanswering()
    engine.stops = stops
    engine.gate.clear()
    engine.start()
    try:
        if stops:
            with pytest.raises(EngineFailure, match="without an answer"):
                transcribe_pcm(engine, say(1), CONFIG)
        else:
            assert texts(transcribe_pcm(engine, say(1), CONFIG)) == ["one"]
    finally:
        engine.stop()


def test_slot_is_free_after_each_way_to_fail() -> None:
    engine = FakeEngine(max_streams=1, fail_at_s=4.0)
    engine.start()
    try:
        assert texts(transcribe_pcm(engine, say(1), CONFIG)) == ["one"]
        with pytest.raises(InvalidAudio):
            transcribe_bytes(engine, [b"no audio at all" * 100], dataclasses.replace(CONFIG, audio=AudioFormat()))
        with pytest.raises(EngineFailure):
            transcribe_pcm(engine, SPEECH, CONFIG)
        assert texts(transcribe_pcm(engine, say(2), CONFIG)) == ["two"]
        assert engine.active_streams == 0
    finally:
        engine.stop()


def test_slot_is_free_when_the_caller_stops_early() -> None:
    engine = FakeEngine(max_streams=1)
    engine.start()
    try:
        abandoned = stream_bytes(engine, itertools.repeat(linear16(say(1, 1.0))), CONFIG)
        next(abandoned)
        with pytest.raises(NoCapacity):
            transcribe_pcm(engine, say(1), CONFIG)
        abandoned.close()
        assert texts(transcribe_pcm(engine, say(2), CONFIG)) == ["two"]
    finally:
        engine.stop()


def test_a_caller_that_never_begins_takes_no_slot() -> None:
    engine = FakeEngine(max_streams=1)
    engine.start()
    try:
        unread = stream_bytes(engine, [linear16(say(1))], CONFIG)
        assert texts(transcribe_pcm(engine, say(2), CONFIG)) == ["two"]
        unread.close()
    finally:
        engine.stop()
