"""Shorthand for the messages of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from asr_service.generated.asr.v1 import speech_pb2 as pb
from tests.fake_engine import FakeEngine

RAW = {"encoding": "LINEAR16", "sample_rate_hertz": 16_000}


def config(recognition: dict[str, Any] | None = None, **streaming: Any) -> pb.StreamingRecognizeRequest:
    made = pb.StreamingRecognitionConfig(config=pb.RecognitionConfig(**(RAW | (recognition or {}))), **streaming)
    return pb.StreamingRecognizeRequest(streaming_config=made)


def audio(data: bytes) -> pb.StreamingRecognizeRequest:
    return pb.StreamingRecognizeRequest(audio=data)


def chunks(data: bytes, size: int = 640) -> list[pb.StreamingRecognizeRequest]:
    return [audio(data[start : start + size]) for start in range(0, len(data), size)]


def paced(data: bytes, engine: FakeEngine, size: int = 2560) -> Iterator[pb.StreamingRecognizeRequest]:
    """Chunks that come slower than the engine works and the client reads, as a microphone's do: a newer interim would
    replace one that was not read yet.
    """
    import time

    for message in chunks(data, size):
        yield message
        time.sleep(0.02)
        while engine.queued_samples:
            time.sleep(0.001)


FLUSH = pb.StreamingRecognizeRequest(control=pb.StreamControl(flush=pb.StreamControl.Flush()))
KEEP_ALIVE = pb.StreamingRecognizeRequest(control=pb.StreamControl(keep_alive=pb.StreamControl.KeepAlive()))


def finals(responses: Iterable[pb.StreamingRecognizeResponse]) -> list[str]:
    return [
        result.alternatives[0].transcript for response in responses for result in response.results if result.is_final
    ]


def transcript(responses: Iterable[pb.StreamingRecognizeResponse]) -> str:
    """As the API reference says: the finals' first alternatives, concatenated as they are."""
    return "".join(finals(responses))


def events(responses: Iterable[pb.StreamingRecognizeResponse]) -> list[tuple[str, float]]:
    return [
        (pb.SpeechEvent.Type.Name(response.speech_event.type), response.speech_event.time.ToMilliseconds() / 1000)
        for response in responses
        if response.HasField("speech_event")
    ]
