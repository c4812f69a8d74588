"""Recognize and GetServerInfo, over a real socket."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from asr_service.audio import StreamDecoder
from asr_service.config import Settings
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.server.requests import unary_config
from asr_service.server.servicer import PROBE_BYTES
from tests.fake_engine import FakeEngine, linear16, say
from tests.server.conftest import Service, Start
from tests.server.messages import audio, config, finals

RAW = {"encoding": "LINEAR16", "sample_rate_hertz": 16_000}
SPEECH = say(0.5, 1, 2, 3, 1.5, 4, 5)


def wav(pcm: np.ndarray, rate_hz: int) -> bytes:
    return written(pcm, "WAV", rate_hz)


def written(pcm: np.ndarray, form: str, rate_hz: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, rate_hz, format=form)
    return buffer.getvalue()


@pytest.mark.parametrize(("asked", "most"), [(0, 1), (1, 1), (2, 2), (30, 30)])
def test_the_engine_is_asked_for_as_many_alternatives_as_the_client_wants(asked: int, most: int) -> None:
    request = pb.RecognizeRequest(config=pb.RecognitionConfig(max_alternatives=asked))
    assert unary_config(request, FakeEngine().info, Settings()).max_alternatives == most


def test_results_are_those_of_a_stream(service: Service) -> None:
    response = service.recognize(linear16(SPEECH), enable_word_time_offsets=True, **RAW)
    assert [result.alternatives[0].transcript for result in response.results] == ["one two three", " four five"]
    assert [result.utterance_index for result in response.results] == [0, 1]
    assert response.results[0].alternatives[0].words[0].word == "one"
    assert response.audio_received.ToMilliseconds() == pytest.approx(len(SPEECH) / 16, abs=1)
    assert response.request_id
    streamed = service.stream([config({"mode": "ACCURATE"}), audio(linear16(SPEECH))])
    assert finals(streamed) == [result.alternatives[0].transcript for result in response.results]


def test_a_pause_that_ends_a_live_utterance_need_not_end_one_of_a_file(service: Service) -> None:
    pcm = linear16(say(0.5, 1, 2, 3, 0.85, 4, 5))
    live = finals(service.stream([config(), audio(pcm)]))
    (whole,) = service.recognize(pcm, **RAW).results
    assert live == ["one two three", " four five"]
    assert whole.alternatives[0].transcript == "one two three four five"
    assert finals(service.stream([config({"mode": "ACCURATE"}), audio(pcm)])) == ["one two three four five"]


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_header_says_what_the_audio_is(service: Service, rate_hz: int) -> None:
    response = service.recognize(wav(say(0.48, 1, 2, 3, rate_hz=rate_hz), rate_hz))
    assert [result.alternatives[0].transcript for result in response.results] == ["one two three"]


def test_one_channel_of_two_is_recognised_where_asked_for(service: Service) -> None:
    both = wav(np.stack([say(1, 2), say(3, 4)], axis=1), 16_000)
    for channel, expected in ((1, "one two"), (2, "three four")):
        (result,) = service.recognize(both, audio_channel=channel).results
        assert result.alternatives[0].transcript == expected
    told = service.unary_refused(both, audio_channel=3)
    assert told.reason == "INVALID_FIELD"


def test_all_channels_are_heard_where_none_is_asked_for(service: Service) -> None:
    second = wav(np.stack([np.zeros_like(say(1, 2)), say(1, 2)], axis=1), 16_000)
    (result,) = service.recognize(second).results
    assert result.alternatives[0].transcript == "one two"


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({"sample_rate_hertz": 16_000}, "RATE_MISMATCH"),
        ({"audio_channel_count": 2}, "CHANNEL_MISMATCH"),
        ({"audio_channel": 2}, "INVALID_FIELD"),
    ],
)
def test_header_that_contradicts_the_config_is_refused_by_the_fields_path_in_the_request(
    service: Service, declared: dict[str, int], reason: str
) -> None:
    file = wav(say(1, rate_hz=8_000), 8_000)
    (name,) = declared
    told = service.unary_refused(file, **declared)
    assert (told.reason, told.fields) == (reason, [f"config.{name}"])
    streamed = service.refused([config({"encoding": 0, "sample_rate_hertz": 0} | declared), audio(file)])
    assert (streamed.reason, streamed.fields) == (reason, [f"streaming_config.config.{name}"])
    assert streamed.message == f"streaming_config.{told.message}"


def test_file_without_samples_has_no_results(service: Service) -> None:
    response = service.recognize(wav(say(), 16_000))
    assert not response.results and response.audio_received.ToMilliseconds() == 0


@pytest.mark.parametrize("form", ["raw", "WAV", "FLAC", "OGG", "MP3"])
def test_of_a_recording_that_is_too_long_nothing_is_recognised(start: Start, form: str) -> None:
    service = start(max_unary_s=4.0)
    service.engine.gate.clear()  # what it is given waits for ever
    noise = 0.1 * np.random.default_rng(7).standard_normal(5 * 16_000).astype(np.float32)
    if form == "raw":
        told = service.unary_refused(linear16(noise), **RAW)
    else:
        told = service.unary_refused(written(noise, form))
    assert (told.reason, told.fields) == ("AUDIO_TOO_LONG", ["audio"])
    assert told.message == "audio: longer than 4 s, the limit; use StreamingRecognize"
    assert service.engine.most_queued_s == 0.0


def test_nor_of_one_that_is_damaged(start: Start) -> None:
    service = start()
    service.engine.gate.clear()
    noise = 0.1 * np.random.default_rng(7).standard_normal(5 * 16_000).astype(np.float32)
    assert service.unary_refused(written(noise, "FLAC")[:-2_000]).reason == "INVALID_AUDIO"
    assert service.engine.most_queued_s == 0.0


def test_while_a_recording_is_decoded_the_server_serves_others(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    decoding, may_go_on = threading.Event(), threading.Event()
    original = StreamDecoder.blocks

    def slow(decoder: StreamDecoder, data: bytes) -> Iterator[np.ndarray]:
        if not may_go_on.is_set():
            decoding.set()
            assert may_go_on.wait(10)
        return original(decoder, data)

    monkeypatch.setattr(StreamDecoder, "blocks", slow)
    service = start()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(service.recognize, linear16(SPEECH), **RAW)
        assert decoding.wait(10)
        service.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=5)
        may_go_on.set()
        assert len(call.result().results) == 2


def test_time_that_decoding_takes_is_not_the_clients_silence(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    original = StreamDecoder.blocks

    def slow(decoder: StreamDecoder, data: bytes) -> Iterator[np.ndarray]:
        if threading.current_thread().name.startswith("asyncio"):  # one of the event loop's helpers
            time.sleep(0.3)
        return original(decoder, data)

    monkeypatch.setattr(StreamDecoder, "blocks", slow)
    service = start(idle_timeout_s=1.2)
    pcm = linear16(say(1, 2, 9.0))
    (result,) = service.recognize(pcm, **RAW).results
    assert len(pcm) > 4 * PROBE_BYTES and result.alternatives[0].transcript == "one two"


def test_request_without_config_is_refused(service: Service) -> None:
    import grpc

    with pytest.raises(grpc.RpcError, match="config"):
        service.stub.Recognize(pb.RecognizeRequest(audio=b"x"), timeout=10)


def test_server_tells_what_it_offers(service: Service) -> None:
    info = service.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10)
    (model,) = info.models
    assert (model.name, list(model.language_codes)) == ("tones", ["en"])
    assert set(model.modes) == {pb.RecognitionConfig.STREAMING, pb.RecognitionConfig.ACCURATE}
    assert set(info.encodings) == set(pb.RecognitionConfig.AudioEncoding.values()) - {0}
    assert info.limits.max_streams == 4
    assert model.hash == "sha256:" + 64 * "7"


def test_limits_in_the_api_reference_are_the_defaults(service: Service) -> None:
    """Each "Default ..." in the comments of message Limits is what a server with default settings tells."""
    limits = service.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10).limits
    assert limits.max_audio_channel_count == 8
    assert limits.max_alternatives == 30
    assert limits.max_message_bytes == 12 * 2**20
    assert limits.max_chunk_bytes == 2**20
    assert limits.max_unary_audio.seconds == 300
    assert limits.max_stream_audio.seconds == 14_400
    assert limits.max_buffered_audio.seconds == 10
    assert limits.idle_timeout.seconds == 20
    assert limits.max_pending_responses == 64
    assert limits.slow_consumer_timeout.seconds == 30
    assert (limits.min_sample_rate_hertz, limits.max_sample_rate_hertz) == (8_000, 48_000)
