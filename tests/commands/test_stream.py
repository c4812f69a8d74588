"""`asr stream` at a terminal: interims that are taken back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace

from asr_service.commands.latency import LatencyMeter, SendLog
from asr_service.commands.live_view import BOLD, CLEAR_LINE, DIM, PLAIN, LiveView
from asr_service.commands.stream import CHUNK_S, show
from asr_service.generated.asr.v1 import speech_pb2 as pb
from tests.commands.test_microphone import Terminal


def interim(*parts: tuple[str, float]) -> pb.StreamingRecognizeResponse:
    """One response: texts with their stabilities."""
    results = [
        pb.StreamingRecognitionResult(
            alternatives=[pb.SpeechRecognitionAlternative(transcript=text)], stability=stability
        )
        for text, stability in parts
    ]
    return pb.StreamingRecognizeResponse(results=results)


def test_an_interim_without_words_takes_back_what_is_drawn() -> None:
    event = pb.StreamingRecognizeResponse(speech_event=pb.SpeechEvent(type=pb.SpeechEvent.SPEECH_ACTIVITY_END))
    screen, lines = Terminal(), []

    def answers() -> Iterator[pb.StreamingRecognizeResponse]:
        for response in (interim(("to", 0.95), (" be", 0.1)), event, interim(("", 0.1))):
            yield response
            lines.append(screen.getvalue().rpartition(CLEAR_LINE)[2])

    view = LiveView(io.StringIO(), screen, show_partials=True)
    client = SimpleNamespace(stream=lambda *_, **__: answers())
    show(client, iter(()), view, LatencyMeter(SendLog(CHUNK_S)), mic=False, mode="streaming")
    shown = f"{BOLD}to{PLAIN}{DIM} be{PLAIN}"
    assert lines == [shown, shown, f"{BOLD}{PLAIN}{DIM}{PLAIN}"]
