"""`asr stream` at a terminal: interims that are taken back, Ctrl-C."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

from asr_service.cli import main
from asr_service.commands.latency import LatencyMeter, SendLog
from asr_service.commands.live_view import BOLD, CLEAR_LINE, DIM, PLAIN, LiveView
from asr_service.commands.stream import CHUNK_S, show
from asr_service.config import ServerSettings, Settings
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.server.app import ServerThread
from tests.commands.test_microphone import Terminal
from tests.fake_engine import FakeEngine, say


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


@pytest.mark.timeout(60)
def test_ctrl_c_ends_a_file_and_what_was_sent_becomes_final(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "long.wav"
    soundfile.write(file, say(1, 2, 400.0, 3), 16_000)
    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0))
    with ServerThread(settings, lambda: FakeEngine(pace=0.01)) as server:  # 4 s for the whole file
        threading.Timer(1.0, signal.raise_signal, [signal.SIGINT]).start()
        assert main(["stream", str(file), "--server", server]) == 0
    told = capsys.readouterr()
    assert told.out == "one two\n"
    assert "real-time factor" in told.err
