"""The session, with an engine driven by hand: order, bounds, and exactly one end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asr_service.audio import AudioLimits, StreamDecoder
from asr_service.config import EndpointingSettings, StreamSettings
from asr_service.engine.interface import (
    Failed,
    Final,
    Finished,
    FrameEvidence,
    Partial,
    Progress,
    Sink,
    SpeechBegin,
    SpeechEnd,
    StreamHandle,
    StreamOptions,
    UtterancePolicy,
)
from asr_service.errors import EngineFailure, InvalidAudio, ShuttingDown, SlowConsumer, StreamIdle, TooManyMessages
from asr_service.streaming.session import End, Session, VoiceTimeout
from asr_service.types import (
    AudioEncoding,
    AudioFormat,
    Hypothesis,
    Mode,
    RecognitionConfig,
    SpeechEventKind,
    Word,
)

RAW = AudioFormat(AudioEncoding.LINEAR16, 16_000, 1)
SECOND = np.zeros(16_000, dtype=np.float32)


class HandDriven:
    """Notes what it is told; `put` is its thread."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.samples = 0

    def open(self, options: StreamOptions, policy: UtterancePolicy, sink: Sink) -> StreamHandle:
        self.put, self.policy = sink, policy
        return StreamHandle(0, 1)

    def audio(self, handle: StreamHandle, pcm: NDArray[np.float32]) -> None:
        self.calls.append("audio")
        self.samples += len(pcm)

    def flush(self, handle: StreamHandle) -> None:
        self.calls.append("flush")

    def finish(self, handle: StreamHandle) -> None:
        self.calls.append("finish")

    def cancel(self, handle: StreamHandle) -> None:
        self.calls.append("cancel")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def engine() -> HandDriven:
    return HandDriven()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def session(
    engine: HandDriven,
    clock: Clock,
    settings: StreamSettings | None = None,
    endpointing: EndpointingSettings | None = None,
    **options: Any,
) -> Session:
    config = RecognitionConfig(audio=RAW, mode=Mode.STREAMING, interim_results=True, **options)
    return Session(
        engine,  # type: ignore[arg-type]
        config,
        decoder=StreamDecoder(config.audio, limits=AudioLimits()),
        wake=lambda: None,
        settings=settings or StreamSettings(),
        endpointing=endpointing or EndpointingSettings(),
        clock=clock,
    )


def push(stream: Session, data: bytes) -> None:
    for block in stream.decode(data):
        stream.feed(block)


def hypothesis(text: str, start_s: float = 0.0) -> Hypothesis:
    return Hypothesis(tuple(Word(word, start_s, start_s + 0.1, 0.9) for word in text.split()))


def final(text: str, index: int) -> Final:
    return Final((hypothesis(text, float(index)),), index, float(index), index + 0.9)


def test_bytes_wait_until_there_are_enough_and_none_is_lost(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock)
    for _ in range(3300):
        push(stream, b"\0")
    for block in stream.decode_rest():
        stream.feed(block)
    assert engine.samples == 1650
    assert len(engine.calls) <= 3300 / 160 + 1


def test_room_ends_at_the_bound_and_comes_back_with_progress(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock, StreamSettings(max_buffered_s=4.0, block_s=1.0))
    fed = 0
    while stream.has_room:
        stream.feed(SECOND)
        fed += 1
    assert fed == 3
    engine.put(Progress(1.0))
    stream.collect()
    assert stream.has_room


def test_full_outbox_takes_the_room_until_the_client_reads(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock, StreamSettings(max_pending_updates=3))
    for index in range(3):
        engine.put(final("a", index))
    stream.collect()
    assert not stream.has_room
    assert stream.take() is not None
    assert stream.has_room


def test_client_that_never_reads_is_a_slow_consumer(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock, StreamSettings(max_pending_updates=2, slow_consumer_s=5.0))
    engine.put(final("a", 0))
    engine.put(final("b", 1))
    stream.collect()
    clock.now = 4.9
    stream.check_slow_consumer()
    clock.now = 5.0
    with pytest.raises(SlowConsumer):
        stream.check_slow_consumer()


def test_client_that_reads_now_and_then_is_not(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock, StreamSettings(max_pending_updates=2, slow_consumer_s=5.0))
    for index in range(20):
        engine.put(final("a", index))
        stream.collect()
        clock.now += 4.0
        stream.check_slow_consumer()
        if index:
            assert stream.take() is not None


def test_client_may_leave_results_unread_while_nothing_waits_for_it(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock, StreamSettings(max_pending_updates=4, slow_consumer_s=5.0))
    engine.put(final("a", 0))
    stream.collect()
    clock.now = 1000.0
    stream.check_slow_consumer()


def test_client_that_does_not_read_the_last_response_is_a_slow_consumer(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock, StreamSettings(slow_consumer_s=5.0))
    engine.put(final("a", 0))
    stream.collect()
    assert stream.take() is not None  # and it is being delivered when the stream ends
    engine.put(Finished())
    stream.collect()
    clock.now = 4.9
    stream.check_slow_consumer()
    clock.now = 5.0
    with pytest.raises(SlowConsumer, match="1 waiting"):
        stream.check_slow_consumer()
    stream.close()
    stream.collect()
    assert stream.slow_consumer_deadline is None


def test_client_that_has_read_everything_is_not_waited_for(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock)
    engine.put(final("a", 0))
    stream.collect()
    assert stream.take() is not None
    assert stream.take() is None
    engine.put(Finished())
    stream.collect()
    assert stream.slow_consumer_deadline is None


def test_idle_stream_ends(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock, StreamSettings(idle_timeout_s=10.0))
    push(stream, bytes(32_000))
    stream.audio_arrived()
    clock.now = 9.0
    stream.keep_alive()
    clock.now = 18.9
    stream.check_idle()
    clock.now = 19.0
    with pytest.raises(StreamIdle):
        stream.check_idle()


def test_stream_that_waits_for_its_finals_is_not_idle(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock)
    stream.finish()
    clock.now = 1e6
    stream.check_idle()
    assert stream.idle_deadline is None


@pytest.mark.parametrize("send", [Session.keep_alive, Session.flush, lambda stream: push(stream, b"")])
def test_too_many_empty_messages(engine: HandDriven, clock: Clock, send: Callable[[Session], None]) -> None:
    stream = session(engine, clock, StreamSettings(empty_message_burst=3))
    for _ in range(3):
        push(stream, b"")
    with pytest.raises(TooManyMessages):
        send(stream)


def test_single_utterance_gives_event_then_final_then_ends(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock, single_utterance=True)
    stream.feed(SECOND)
    engine.put(final("one", 0))
    engine.put(final("two", 1))
    stream.collect()
    event, result, nothing = stream.take(), stream.take(), stream.take()
    assert event is not None and event.event is not None and result is not None
    assert event.event.kind is SpeechEventKind.END_OF_SINGLE_UTTERANCE
    assert result.results[0].is_final
    assert event.event.time_s == result.results[0].end_s == 0.9
    assert nothing is None
    assert (stream.end, stream.error, stream.finals) == (End.COMPLETED, None, 1)
    assert engine.calls == ["audio", "cancel"]


def test_longest_stream_gets_its_finals_then_an_error(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock, StreamSettings(max_stream_s=2.0))
    for _ in range(3):
        stream.feed(SECOND)
    assert engine.samples == 32_000
    assert engine.calls == ["audio", "audio", "finish"]
    engine.put(final("a", 0))
    engine.put(Finished())
    stream.collect()
    assert stream.take() is not None
    assert stream.end is End.FAILED
    assert stream.error is not None and stream.error.reason == "STREAM_TOO_LONG"


def test_stream_of_exactly_the_longest_length_is_fine(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock, StreamSettings(max_stream_s=2.0))
    stream.feed(SECOND)
    stream.feed(SECOND)
    stream.finish()
    engine.put(Finished())
    stream.collect()
    assert (stream.end, stream.error) == (End.COMPLETED, None)


def test_flush_comes_after_the_bytes_before_it(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock)
    push(stream, bytes(100))
    for block in stream.decode_pending():
        stream.feed(block)
    stream.flush()
    assert engine.calls == ["audio", "flush"]


def test_what_was_said_after_a_voice_timeout_is_not_told(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock, voice_activity_events=True, speech_end_timeout_s=1.0)
    engine.put(VoiceTimeout(3.0))
    engine.put(SpeechEnd(3.0))
    engine.put(Final((hypothesis("before"),), 0, 0.0, 2.0))
    engine.put(SpeechBegin(4.0))
    engine.put(Partial(hypothesis("after", 4.0), 0, 1, 4.0, 4.5))
    engine.put(Final((hypothesis("after", 4.0),), 1, 4.0, 4.5))
    engine.put(Finished())
    stream.collect()
    event, result, nothing = stream.take(), stream.take(), stream.take()
    assert event is not None and event.event is not None
    assert event.event.kind is SpeechEventKind.SPEECH_ACTIVITY_TIMEOUT
    assert result is not None and result.results[0].alternatives[0].text == "before"
    assert nothing is None
    assert (stream.end, stream.error) == (End.COMPLETED, None)
    assert engine.calls == ["finish", "cancel"]


def test_half_a_sample_at_the_end_is_dropped_and_counted(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock)
    push(stream, bytes(321))
    for block in stream.decode_rest():
        stream.feed(block)
    assert engine.samples == 160
    assert stream.dropped_bytes == 1


def test_failure_of_the_engine_ends_the_stream_after_what_was_put_out(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock)
    engine.put(final("a", 0))
    engine.put(Failed(EngineFailure("broken")))
    stream.collect()
    assert stream.take() is not None
    assert stream.end is End.FAILED and isinstance(stream.error, EngineFailure)


def test_first_end_stands(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock)
    stream.fail(InvalidAudio("bad"))
    stream.finish(ShuttingDown("later"))
    engine.put(Finished())
    stream.collect()
    stream.close()
    stream.close()
    assert stream.end is End.FAILED and isinstance(stream.error, InvalidAudio)
    assert engine.calls == ["cancel"]


@pytest.mark.parametrize("timeout_s", [None, 60.0])
def test_utterances_end_as_the_settings_say(engine: HandDriven, clock: Clock, timeout_s: float | None) -> None:
    session(engine, clock, endpointing=EndpointingSettings(empty_silence_s=1.0), speech_start_timeout_s=timeout_s)
    silence = [FrameEvidence(time_s, False, False, False, 0.0) for time_s in (0.9, 1.0)]
    assert [engine.policy.observe(evidence) for evidence in silence] == [False, True]


def test_what_a_closed_stream_still_had_waits_for_nobody(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock)
    engine.put(final("a", 0))
    stream.collect()
    stream.close()
    stream.collect()
    assert not stream.has_updates
    assert stream.slow_consumer_deadline is None


def test_nothing_is_fed_after_the_end(engine: HandDriven, clock: Clock) -> None:
    stream = session(engine, clock)
    stream.close()
    stream.feed(SECOND)
    stream.flush()
    stream.finish()
    assert engine.calls == ["cancel"]
    assert stream.end is End.CANCELLED
    assert stream.take() is None


@pytest.mark.parametrize(
    ("audio", "size"),
    [
        (RAW, 160),
        (AudioFormat(AudioEncoding.MULAW, 8_000), 40),
        (AudioFormat(AudioEncoding.FLOAT32, 48_000, 2), 1920),
        (AudioFormat(AudioEncoding.WAV), 160),
        (AudioFormat(AudioEncoding.OGG_OPUS, 16_000, 1), 1),  # a page of 20 ms may have 59 bytes
        (AudioFormat(AudioEncoding.FLAC), 1),
        (AudioFormat(AudioEncoding.UNSPECIFIED), 1),
    ],
)
def test_five_milliseconds_of_samples_or_a_byte_of_compressed_audio_are_decoded_at_once(
    engine: HandDriven, audio: AudioFormat, size: int
) -> None:
    pieces: list[bytes] = []

    class Decoder:
        received_s = 0.0

        def blocks(self, data: bytes) -> Iterator[NDArray[np.float32]]:
            pieces.append(data)
            yield SECOND

    session = Session(
        engine,  # type: ignore[arg-type]
        RecognitionConfig(mode=Mode.STREAMING, audio=audio),
        decoder=Decoder(),  # type: ignore[arg-type]
        wake=lambda: None,
        settings=StreamSettings(),
        endpointing=EndpointingSettings(),
    )
    for _ in range(2 * size):
        list(session.decode(b"x"))
    assert [len(piece) for piece in pieces] == [size, size]
