"""A running server as the system under test, over gRPC."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from asr_service.client import Client, event_of, result_of
from asr_service.config import Settings
from asr_service.connection import Connection
from asr_service.evaluation.latency import MESSAGE_S, StreamLog
from asr_service.evaluation.output import Output
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.waveform import read_waveform
from asr_service.types import SAMPLE_RATE_HZ, Mode

# Where nobody waits for words, longer messages cost less; far below the server's limit of a message.
BULK_MESSAGE_S = 1.0


@dataclass(frozen=True, slots=True)
class ServerSystem:
    """A server in a mode.

    Attributes:
        real_time: in streaming mode, send at the pace of a microphone and take latencies by the wall clock, transport
            and all. Otherwise as fast as the server takes it, and the timing has the processing time alone.
        settings: of the audio decoding here; what the server's own settings are, it alone knows.
    """

    connection: Connection
    mode: Mode = Mode.ACCURATE
    real_time: bool = False
    settings: Settings = field(default_factory=Settings)

    @contextlib.contextmanager
    def open(self) -> Iterator[ByServer]:
        with self.connection.client() as client:
            # A server that is not there is one failure, not one for each utterance.
            client.server_info(metadata=self.connection.metadata)
            yield ByServer(client, self)

    def identity(self) -> Mapping[str, str]:
        """Raises ServiceError, ConfigError. Of a server that does not tell its weights, name and version must do."""
        with self.connection.client() as client:
            info = client.server_info(metadata=self.connection.metadata)
        model = info.models[0]
        return ({"model_hash": model.hash} if model.hash else {}) | {
            "model": model.name,
            "through": f"a server, version {info.version}",
            "mode": self.mode.value,
            "pace": "real time" if self.real_time else "as fast as it goes",
        }

    def vocabulary(self) -> None:
        """A server does not tell its words."""


class ByServer:
    """One call after the other. The samples are decoded here, so that a part of a recording can be sent."""

    def __init__(self, client: Client, system: ServerSystem) -> None:
        self._client = client
        self._system = system

    def recognise(self, reference: Reference) -> Output:
        """Raises OSError, InvalidAudio, ServiceError."""
        waveform = read_waveform(reference, self._system.settings)
        paced = self._system.real_time and self._system.mode is Mode.STREAMING
        message = round((MESSAGE_S if paced else BULK_MESSAGE_S) * SAMPLE_RATE_HZ)
        log = StreamLog()
        begun = time.monotonic()

        def messages() -> Iterator[bytes]:
            for start in range(0, len(waveform), message):
                if paced:
                    spoken_s = min(start + message, len(waveform)) / SAMPLE_RATE_HZ
                    time.sleep(max(0.0, begun + spoken_s - time.monotonic()))
                yield waveform[start : start + message].astype("<f4").tobytes()

        responses = self._client.stream(
            messages(),
            encoding="FLOAT32",
            sample_rate_hertz=SAMPLE_RATE_HZ,
            mode=self._system.mode.value,
            interim_results=paced,
            enable_word_time_offsets=True,
            enable_word_confidence=True,
            enable_voice_activity_events=True,
            metadata=self._system.connection.metadata,
        )
        for response in responses:
            _note(log, response, time.monotonic() - begun)
        elapsed_s = time.monotonic() - begun
        audio_s = len(waveform) / SAMPLE_RATE_HZ
        return log.output(
            reference.utterance_id,
            processing_s=None if paced else elapsed_s,  # at a microphone's pace, most of it was waiting
            audio_s=audio_s,
            timed=paced,
        )


def _note(log: StreamLog, response: Any, shown_s: float) -> None:
    if response.HasField("speech_event"):
        log.event(event_of(response.speech_event))
        return
    results = [result_of(result) for result in response.results]
    interims = [result for result in results if not result.is_final]
    if interims:
        text = " ".join(result.alternatives[0].text for result in interims)
        log.display.interim(interims[0].utterance_index, text, shown_s, None)
    for result in results:
        if result.is_final:
            log.display.final(result.utterance_index, result.alternatives[0].words, shown_s, None)
