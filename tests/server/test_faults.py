"""Bad input over a real socket: each gets its documented status and reason, and the server goes on.

The numbers are those of the project's list of faults.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from asr_service.audio import StreamDecoder
from asr_service.engine.interface import Final
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.streaming.updates import StreamUpdate, UpdateBuilder
from asr_service.types import Mode
from tests.fake_engine import FakeEngine, linear16, say
from tests.server.conftest import Refusal, Service, Start, refusal, until_error
from tests.server.messages import FLUSH, audio, chunks, config, finals, transcript

SPEECH = linear16(say(1, 2, 3))
INVALID, UNIMPLEMENTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED
EXHAUSTED, NOT_FOUND = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.NOT_FOUND
EMPTY = pb.StreamingRecognizeRequest()


@pytest.fixture(autouse=True)
def canary(service: Service) -> Iterator[None]:
    """After each fault a stream gives what it gave before, and no slot is lost."""
    yield
    assert transcript(service.stream([config(), *chunks(SPEECH)])) == "one two three"
    assert service.engine.active_streams == 0


def matches(told: Refusal, code: grpc.StatusCode, reason: str, field: str = "") -> None:
    assert (told.code, told.reason) == (code, reason), told
    assert told.fields == ([field] if field else [])
    assert told.message


@pytest.mark.parametrize(
    ("messages", "reason", "field"),
    [
        pytest.param([], "NO_CONFIG", "", id="1-half-close-first"),
        pytest.param([audio(SPEECH)], "CONFIG_EXPECTED", "audio", id="2-audio-first"),
        pytest.param([FLUSH], "CONFIG_EXPECTED", "control", id="2-control-first"),
        pytest.param([EMPTY], "EMPTY_MESSAGE", "", id="3-empty-first"),
        pytest.param([config(), audio(SPEECH), config()], "CONFIG_REPEATED", "streaming_config", id="4-second-config"),
        pytest.param([config(), audio(SPEECH), EMPTY], "EMPTY_MESSAGE", "", id="5-empty-later"),
        pytest.param(
            [config(), pb.StreamingRecognizeRequest(control=pb.StreamControl())],
            "EMPTY_MESSAGE",
            "control",
            id="5-empty-control",
        ),
        pytest.param(
            [pb.StreamingRecognizeRequest(streaming_config=pb.StreamingRecognitionConfig())],
            "NO_CONFIG",
            "streaming_config.config",
            id="1-streaming-config-without-config",
        ),
    ],
)
def test_order_of_messages(
    service: Service, messages: list[pb.StreamingRecognizeRequest], reason: str, field: str
) -> None:
    matches(service.refused(messages), INVALID, reason, field)


def test_6_ten_thousand_empty_chunks_are_ignored_and_more_refused(start: Start) -> None:
    service = start(empty_message_burst=200, empty_messages_per_s=1.0)
    many = [audio(b"")] * 200
    assert transcript(service.stream([config(), *many, audio(SPEECH)])) == "one two three"
    matches(service.refused([config(), *many, *many]), EXHAUSTED, "TOO_MANY_MESSAGES")


@pytest.mark.slow
def test_6_ten_thousand_empty_chunks_with_the_default_limits(service: Service) -> None:
    many = [audio(b"")] * 10_000
    assert transcript(service.stream([config(), *many, audio(SPEECH)], timeout=300.0)) == "one two three"


CONFIG_FAULTS: list[Any] = [
    pytest.param({"encoding": 0, "sample_rate_hertz": 0}, INVALID, "ENCODING_UNKNOWN", None, id="10-no-header"),
    pytest.param({"encoding": 99}, INVALID, "INVALID_FIELD", "config.encoding", id="unknown-encoding"),
    *[
        pytest.param({"sample_rate_hertz": rate}, INVALID, "INVALID_FIELD", "config.sample_rate_hertz", id=f"12-{rate}")
        for rate in (-1, 0, 1, 7_999, 48_001, 2**31 - 1)
    ],
    *[
        pytest.param({"audio_channel_count": n}, INVALID, "INVALID_FIELD", "config.audio_channel_count", id=f"14-{n}")
        for n in (-1, 9, 255)
    ],
    pytest.param({"audio_channel": -1}, INVALID, "INVALID_FIELD", "config.audio_channel", id="channel-negative"),
    pytest.param(
        {"enable_speaker_diarization": True}, UNIMPLEMENTED, "UNSUPPORTED", "config.enable_speaker_diarization", id="15"
    ),
    pytest.param(
        {"enable_automatic_punctuation": True},
        UNIMPLEMENTED,
        "UNSUPPORTED",
        "config.enable_automatic_punctuation",
        id="15-punctuation",
    ),
    *[
        pytest.param({"language_code": code}, INVALID, "INVALID_FIELD", "config.language_code", id=f"16-{code[:8]}")
        for code in ("fr-FR", "x" * 60_000, "en_US", "en-", "\u202een")
    ],
    *[
        pytest.param({"max_alternatives": n}, INVALID, "INVALID_FIELD", "config.max_alternatives", id=f"17-{n}")
        for n in (-1, 31, 2**31 - 1)
    ],
    *[
        pytest.param({"phrase_hints": [hints]}, UNIMPLEMENTED, "UNSUPPORTED", "config.phrase_hints", id=f"18-{number}")
        for number, hints in enumerate(
            ({"phrases": ["a"] * 5_001}, {"phrases": ["a" * 101]}, {"phrases": ["a\0"], "boost": float("nan")}, {})
        )
    ],
    pytest.param({"mode": 9}, INVALID, "INVALID_FIELD", "config.mode", id="unknown-mode"),
    pytest.param({"model": "other"}, NOT_FOUND, "MODEL_NOT_FOUND", "config.model", id="52-unknown"),
    pytest.param({"model": "../../etc/passwd"}, INVALID, "INVALID_FIELD", "config.model", id="52-path"),
    pytest.param({"model": "m" * 64}, NOT_FOUND, "MODEL_NOT_FOUND", "config.model", id="52-longest"),
    pytest.param({"model": "m" * 65}, INVALID, "INVALID_FIELD", "config.model", id="52-too-long"),
    pytest.param({"model": "m" * 50_000}, INVALID, "INVALID_FIELD", "config.model", id="52-long"),
]


@pytest.mark.parametrize(("recognition", "code", "reason", "field"), CONFIG_FAULTS)
def test_config_is_refused_alike_in_both_calls(
    service: Service, recognition: dict[str, Any], code: grpc.StatusCode, reason: str, field: str | None
) -> None:
    streamed = service.refused([config(recognition), audio(SPEECH)])
    whole = service.unary_refused(SPEECH, **({"encoding": "LINEAR16", "sample_rate_hertz": 16_000} | recognition))
    field = whole.fields[0] if field is None else field
    for told, path in ((streamed, f"streaming_config.{field}"), (whole, field)):
        matches(told, code, reason, path)
        assert len(told.message) < 400 and told.message.startswith(path)
    assert streamed.message == f"streaming_config.{whole.message}"


@pytest.mark.parametrize(
    ("streaming", "field"),
    [
        ({"endpointing": {"min_trailing_silence": {"nanos": 1}}}, "endpointing.min_trailing_silence"),
        (
            {"endpointing": {"min_trailing_silence": {"nanos": 1_000_000_000}}},
            "endpointing.min_trailing_silence.nanos",
        ),
        (
            {"voice_activity_timeout": {"speech_end_timeout": {"seconds": 2, "nanos": -1}}},
            "voice_activity_timeout.speech_end_timeout.nanos",
        ),
        (
            {"voice_activity_timeout": {"speech_end_timeout": {"seconds": -1, "nanos": -500_000_000}}},
            "voice_activity_timeout.speech_end_timeout",
        ),
        ({"endpointing": {"min_trailing_silence": {"seconds": -5}}}, "endpointing.min_trailing_silence"),
        ({"endpointing": {"max_utterance": {"seconds": 31}}}, "endpointing.max_utterance"),
        ({"endpointing": {"max_utterance": {"seconds": 2**40}}}, "endpointing.max_utterance"),
        ({"endpointing": {"max_utterance": {}}}, "endpointing.max_utterance"),
        ({"voice_activity_timeout": {"speech_start_timeout": {}}}, "voice_activity_timeout.speech_start_timeout"),
        (
            {"voice_activity_timeout": {"speech_end_timeout": {"seconds": 601}}},
            "voice_activity_timeout.speech_end_timeout",
        ),
    ],
)
def test_stream_options_out_of_range(service: Service, streaming: dict[str, Any], field: str) -> None:
    matches(service.refused([config(**streaming)]), INVALID, "INVALID_FIELD", f"streaming_config.{field}")


def test_a_duration_that_is_hardly_too_long_is_told_as_it_is(service: Service) -> None:
    told = service.refused([config(endpointing={"max_utterance": {"seconds": 30, "nanos": 100}})])
    assert "max_utterance is 30.0000001 s; it must be" in told.message


@pytest.mark.parametrize(
    "streaming",
    [
        {"endpointing": {"min_trailing_silence": {"nanos": 100_000_000}, "max_utterance": {"seconds": 1}}},
        {"endpointing": {"min_trailing_silence": {"seconds": 10}, "max_utterance": {"seconds": 30}}},
        {"voice_activity_timeout": {"speech_start_timeout": {"nanos": 100_000_000}}},
        {"voice_activity_timeout": {"speech_end_timeout": {"seconds": 600}}},
    ],
)
def test_stream_options_at_the_ends_of_their_ranges_are_taken(service: Service, streaming: dict[str, Any]) -> None:
    assert list(service.stream([config(**streaming)])) == []


def test_interim_results_are_refused_where_there_are_none(service: Service) -> None:
    told = service.refused([config({"mode": "ACCURATE"}, interim_results=True)])
    matches(told, UNIMPLEMENTED, "UNSUPPORTED", "streaming_config.interim_results")


def test_a_mode_that_the_model_does_not_offer_is_refused(start: Start) -> None:
    engine = FakeEngine()
    engine.info = dataclasses.replace(engine.info, modes=(Mode.ACCURATE,))
    service = start(engine)
    for recognition in ({}, {"mode": "STREAMING"}):
        matches(service.refused([config(recognition)]), UNIMPLEMENTED, "UNSUPPORTED", "streaming_config.config.mode")
    assert transcript(service.stream([config({"mode": "ACCURATE"}), audio(SPEECH)])) == "one two three"


@pytest.mark.parametrize("language", ["", "en", "EN", "en-US", "en-GB"])
@pytest.mark.parametrize("model", ["", "tones"])
def test_languages_and_models_that_the_server_has(service: Service, language: str, model: str) -> None:
    first = config({"language_code": language, "model": model})
    assert transcript(service.stream([first, audio(SPEECH)])) == "one two three"


def test_20_unknown_fields_are_no_error(service: Service) -> None:
    newer = config().SerializeToString() + b"\xfa\x3f\x03abc"  # field 1023
    call = service.channel.stream_stream(
        "/asr.v1.Speech/StreamingRecognize",
        request_serializer=lambda message: message,
        response_deserializer=pb.StreamingRecognizeResponse.FromString,
    )
    assert transcript(call(iter([newer, audio(SPEECH).SerializeToString()]))) == "one two three"


RANDOM, NOT_UTF8 = b"\xff\xff\xff\xff", b"\x22\x02\xc3\x28"  # the latter is language_code in a RecognitionConfig


@pytest.mark.parametrize("garbage", [RANDOM, b"\x0a\x04" + NOT_UTF8, config().SerializeToString()[:-1]])
def test_21_unary_bytes_that_are_no_message(service: Service, garbage: bytes) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        service.channel.unary_unary("/asr.v1.Speech/Recognize")(garbage, timeout=10)
    matches(refusal(caught.value), grpc.StatusCode.INTERNAL, "MALFORMED_MESSAGE")


@pytest.mark.parametrize("garbage", [RANDOM, b"\x0a\x06\x0a\x04" + NOT_UTF8, config().SerializeToString()[:-1]])
def test_21_streamed_bytes_that_are_no_message(service: Service, garbage: bytes) -> None:
    call = service.channel.stream_stream("/asr.v1.Speech/StreamingRecognize")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([garbage]), timeout=10))
    matches(refusal(caught.value), grpc.StatusCode.INTERNAL, "MALFORMED_MESSAGE")


def test_21_bytes_that_are_no_message_later_in_a_stream(service: Service) -> None:
    call = service.channel.stream_stream("/asr.v1.Speech/StreamingRecognize")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([config().SerializeToString(), b"\xff\xff\xff\xff"]), timeout=10))
    matches(refusal(caught.value), grpc.StatusCode.INTERNAL, "MALFORMED_MESSAGE")


def test_22_megabytes_of_empty_submessages(service: Service) -> None:
    recognition = pb.RecognitionConfig(phrase_hints=[pb.PhraseHints()] * 1_000_000)
    first = pb.StreamingRecognizeRequest(streaming_config=pb.StreamingRecognitionConfig(config=recognition))
    matches(service.refused([first]), INVALID, "INVALID_FIELD", "streaming_config")


def test_23_message_over_the_maximum(start: Start) -> None:
    service = start(server={"max_message_bytes": 200_000, "max_chunk_bytes": 100_000})
    assert service.unary_refused(bytes(200_000)).code is EXHAUSTED
    assert service.refused([config(), audio(bytes(200_000))]).code is EXHAUSTED


@pytest.mark.parametrize(("spare", "reason"), [(0, ""), (-1, "INVALID_FIELD")])
def test_a_first_message_may_be_as_long_as_the_settings_say(start: Start, spare: int, reason: str) -> None:
    first = config()
    first.MergeFromString(b"\xa2\x06\x80\x08" + bytes(1024))  # a field that nobody knows yet
    service = start(server={"max_config_bytes": first.ByteSize() + spare})
    if reason:
        matches(service.refused([first]), INVALID, reason, "streaming_config")
    else:
        assert transcript(service.stream([first, audio(SPEECH)])) == "one two three"


def test_24_chunk_over_the_policy(service: Service) -> None:
    assert list(service.stream([config(), audio(bytes(1 << 20))])) == []
    matches(service.refused([config(), audio(bytes((1 << 20) + 1))]), INVALID, "CHUNK_TOO_LARGE", "audio")


def test_27_unary_recording_longer_than_the_limit(start: Start) -> None:
    service = start(max_unary_s=2.0)
    raw = {"encoding": "LINEAR16", "sample_rate_hertz": 16_000}
    assert service.recognize(bytes(64_000), **raw).audio_received.seconds == 2
    told = service.unary_refused(bytes(64_002), **raw)
    matches(told, INVALID, "AUDIO_TOO_LONG", "audio")
    assert "2 s" in told.message and "StreamingRecognize" in told.message


def test_27_unary_recording_may_be_longer_than_a_stream(start: Start) -> None:
    service = start(max_stream_s=1.0, max_unary_s=2.0)
    raw = {"encoding": "LINEAR16", "sample_rate_hertz": 16_000}
    assert service.recognize(bytes(64_000), **raw).audio_received.seconds == 2
    matches(service.unary_refused(bytes(64_002), **raw), INVALID, "AUDIO_TOO_LONG", "audio")


def test_49_unknown_method_and_service(service: Service) -> None:
    for path in ("/asr.v1.Speech/Translate", "/asr.v9.Speech/Recognize"):
        with pytest.raises(grpc.RpcError) as caught:
            service.channel.unary_unary(path)(b"", timeout=10)
        assert caught.value.code() is UNIMPLEMENTED


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_70_samples_that_are_no_audio(service: Service, value: float) -> None:
    samples = np.zeros(16_000, dtype="<f4")
    samples[9_000] = value
    first = {"encoding": "FLOAT32"}
    matches(service.refused([config(first), *chunks(samples.tobytes())]), INVALID, "NON_FINITE_SAMPLES", "audio")
    told = service.unary_refused(samples.tobytes(), encoding="FLOAT32", sample_rate_hertz=16_000)
    matches(told, INVALID, "NON_FINITE_SAMPLES", "audio")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "INVALID_AUDIO", id="71-no-bytes"),
        pytest.param(b"Dear Sir or Madam, " * 500, "ENCODING_UNKNOWN", id="text"),
        pytest.param(b"\x7fELF" + bytes(4_000), "ENCODING_UNKNOWN", id="67-program"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(4_000), "ENCODING_UNKNOWN", id="67-picture"),
        pytest.param(b"RIFF\x24\x00\x00\x00WAVE", "INVALID_AUDIO", id="62-wav-without-data"),
    ],
)
def test_files_that_are_no_audio(service: Service, content: bytes, reason: str) -> None:
    told = service.unary_refused(content)
    assert (told.code, told.reason) == (INVALID, reason)
    if content:
        told = service.refused([config({"encoding": 0, "sample_rate_hertz": 0}), audio(content)])
        assert (told.code, told.reason) == (INVALID, reason)


def test_40_streams_beyond_the_last_slot_are_told_when_to_try_again(start: Start) -> None:
    service = start(FakeEngine(max_streams=1), server={"retry_after_s": 2.5})
    first = service.stream(_holding(service))
    next(first)
    told = service.refused([config()])
    matches(told, EXHAUSTED, "NO_CAPACITY")
    assert told.retry_after_s == 2.5
    first.cancel()


def _holding(service: Service) -> Iterator[pb.StreamingRecognizeRequest]:
    """A stream that got a result and stays open."""
    import threading

    yield config()
    yield audio(linear16(say(1, 1.0)))
    threading.Event().wait(5)


def test_58_an_engine_that_has_failed_gets_no_more_calls(start: Start) -> None:
    service = start()
    service.engine.healthy = False
    told = service.unary_refused(SPEECH, encoding="LINEAR16", sample_rate_hertz=16_000)
    matches(told, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    assert service.refused([config(), audio(SPEECH)]) == told


def test_engine_failure_ends_its_stream_and_no_other(start: Start) -> None:
    service = start(FakeEngine(fail_at_s=2.0))
    got, told = until_error(service.stream([config(), *chunks(linear16(say(1, 1.0, 2, 3.0)))]))
    assert finals(got) == ["one"]
    matches(told, grpc.StatusCode.INTERNAL, "ENGINE_FAILURE")
    assert transcript(service.stream([config(), audio(SPEECH)])) == "one two three"


def test_a_mistake_of_ours_with_a_result_ends_its_stream_and_no_other(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = UpdateBuilder.final

    def wrong(builder: UpdateBuilder, final: Final, received_s: float) -> StreamUpdate:
        if final.alternatives[0].text == "nine":
            raise KeyError("nine")
        return original(builder, final, received_s)

    monkeypatch.setattr(UpdateBuilder, "final", wrong)
    service = start()
    service.engine.gate.clear()
    calls = [service.stream([config(), audio(linear16(say(digit)))], timeout=5.0) for digit in (1, 9, 2)]
    while service.engine.active_streams < 3:
        time.sleep(0.01)
    service.engine.gate.set()
    matches(until_error(calls[1])[1], grpc.StatusCode.INTERNAL, "INTERNAL")
    assert [transcript(call) for call in (calls[0], calls[2])] == ["one", "two"]


@pytest.mark.parametrize("first", ["blocks", "rest"])
def test_a_mistake_of_ours_in_a_decoder_ends_its_call_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    def wrong(*_: object) -> None:
        raise IndexError("list index out of range")

    with monkeypatch.context() as patched:
        patched.setattr(StreamDecoder, first, wrong)
        told = service.unary_refused(SPEECH, encoding="LINEAR16", sample_rate_hertz=16_000)
        streamed = service.refused([config(), audio(SPEECH)])
    for refused in (told, streamed):
        matches(refused, grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "the server's log has it under request" in refused.message and "index" not in refused.message
