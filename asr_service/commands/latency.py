"""How long after the speech its words came, in seconds of wall-clock time."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from asr_service.types import RecognitionResult


class SendLog:
    """When each chunk of equal length was sent."""

    def __init__(self, chunk_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._chunk_s = chunk_s
        self._clock = clock
        self._times: list[float] = []  # a float for each chunk: 90,000 in an hour of 40 ms chunks

    def noted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks, each noted when it is taken."""
        for chunk in chunks:
            self._times.append(self._clock())
            yield chunk

    @property
    def audio_s(self) -> float:
        return len(self._times) * self._chunk_s

    def sent_at(self, time_s: float) -> float | None:
        """When the audio at this stream time was sent; None where nothing was."""
        if not self._times:
            return None
        index = min(math.floor(time_s / self._chunk_s + 1e-6), len(self._times) - 1)
        return self._times[max(0, index)]


def in_real_time(chunks: Iterable[bytes], chunk_s: float, stop: threading.Event | None = None) -> Iterator[bytes]:
    """The chunks at the pace of a microphone: each comes when its last sample would have been recorded."""
    stop = stop or threading.Event()
    started = time.monotonic()
    for number, chunk in enumerate(chunks, 1):
        if stop.wait(max(0.0, started + number * chunk_s - time.monotonic())):
            return
        yield chunk


@dataclass
class LatencyMeter:
    """Collects, for each utterance, when its first interim and its final came.

    Attributes:
        first_partial_s: from when the first word's beginning was sent to the utterance's first interim.
        final_s: from when the last word's end was sent to the final. It has the endpoint's silence in it.
    """

    log: SendLog
    clock: Callable[[], float] = time.monotonic
    first_partial_s: list[float] = field(default_factory=list)
    final_s: list[float] = field(default_factory=list)
    _first_interim: dict[int, float] = field(default_factory=dict)

    def note(self, result: RecognitionResult) -> None:
        now = self.clock()
        if not result.is_final:
            self._first_interim.setdefault(result.utterance_index, now)
            return
        words = result.alternatives[0].words
        first_interim = self._first_interim.pop(result.utterance_index, None)
        if not words:
            return
        spoken, ended = self.log.sent_at(words[0].start_s), self.log.sent_at(words[-1].end_s)
        if first_interim is not None and spoken is not None:
            self.first_partial_s.append(first_interim - spoken)
        if ended is not None:
            self.final_s.append(now - ended)

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"first partial after its first word began: {summary(self.first_partial_s)}",
            f"final after its last word ended: {summary(self.final_s)}",
        ]


def summary(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    if len(seconds) == 1:
        return f"{seconds[0]:.2f} s"
    import numpy as np

    p50, p95 = np.percentile(seconds, [50, 95])
    return f"p50 {p50:.2f} s, p95 {p95:.2f} s ({len(seconds)} utterances)"
