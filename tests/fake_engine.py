"""A small engine with a thread and an inbox like the real one, that "recognises" tones: digits by their pitch.

It answers from the samples alone, so that lost, doubled or reordered audio shows in the transcript. A digit k is a tone
of 200 + 100 k Hz; a word is a run of at least two 80 ms frames of one pitch; quiet frames are silence.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from asr_service.engine.interface import (
    EngineInfo,
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
from asr_service.errors import EngineFailure, NoCapacity, ShuttingDown
from asr_service.types import Hypothesis, Mode, PhraseHint, Word

RATE_HZ = 16_000
FRAME = 1280
FRAME_S = FRAME / RATE_HZ
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def tone(digit: int, duration_s: float = 0.32, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    """The sound of a digit, float32 of shape (n,)."""
    times = np.arange(round(duration_s * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * (200 + 100 * digit) * times)).astype(np.float32)


def silence(duration_s: float, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    return np.zeros(round(duration_s * rate_hz), dtype=np.float32)


def say(*parts: int | float, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    """Digits (int) and pauses in seconds (float)."""
    sounds = [tone(part, rate_hz=rate_hz) if isinstance(part, int) else silence(part, rate_hz) for part in parts]
    return np.concatenate(sounds) if sounds else silence(0.0)


def linear16(pcm: NDArray[np.float32]) -> bytes:
    return np.round(pcm * 32767).astype("<i2").tobytes()


@dataclass
class _Stream:
    options: StreamOptions
    policy: UtterancePolicy
    sink: Sink
    pending: NDArray[np.float32] = field(default_factory=lambda: silence(0.0))
    frames: int = 0
    runs: list[tuple[int, int, int]] = field(default_factory=list)  # (digit, first frame, last frame + 1)
    start_s: float = 0.0
    index: int = 0
    speaking: bool = False


class FakeEngine:
    """Implements `asr_service.engine.interface.Engine`.

    Attributes:
        gate: while clear, the thread handles no message, as an engine that is busy elsewhere.
        pace: real seconds per second of audio.
        fail_at_s: a stream fails when it gets there.
        handled_samples, told_results: of all streams, audio that was worked off and interims and finals put out.
        spell: turns a digit into the word that is put out (long words make long messages).
    """

    def __init__(
        self,
        *,
        max_streams: int = 4,
        pace: float = 0.0,
        fail_at_s: float | None = None,
        spell: Callable[[int], str] = DIGITS.__getitem__,
        features: tuple[str, ...] = ("word_time_offsets", "word_confidence"),
    ) -> None:
        self.info = EngineInfo(
            model="tones",
            languages=("en",),
            modes=(Mode.STREAMING, Mode.ACCURATE),
            features=features,
            max_streams=max_streams,
            chunk_s=FRAME_S,
            model_hash="sha256:" + 64 * "7",
        )
        self.gate = threading.Event()
        self.gate.set()
        self.healthy = True
        self.prepared: list[tuple[str, Mode, tuple[PhraseHint, ...]]] = []  # with the thread's name
        self.hinted: list[tuple[PhraseHint, ...]] = []  # of the streams opened
        self.queued_samples = 0
        self.most_queued_s = 0.0
        self.handled_samples = self.told_results = 0
        self._pace, self._fail_at_s, self._spell = pace, fail_at_s, spell
        self._inbox: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._streams: dict[StreamHandle, _Stream] = {}
        self._lock = threading.Lock()
        self._generation = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="fake-engine", daemon=True)

    @property
    def active_streams(self) -> int:
        return len(self._streams)

    def start(self) -> None:
        self._thread.start()

    def prepare(self, mode: Mode, phrase_hints: tuple[PhraseHint, ...]) -> None:
        self.prepared.append((threading.current_thread().name, mode, phrase_hints))

    def ready(self, mode: Mode, phrase_hints: tuple[PhraseHint, ...]) -> object | None:
        return None

    def open(self, options: StreamOptions, policy: UtterancePolicy, sink: Sink) -> StreamHandle:
        if self._stopped:
            raise ShuttingDown("the engine is stopped")
        if len(self._streams) >= self.info.max_streams:
            raise NoCapacity(f"all {self.info.max_streams} streams are in use")
        self._generation += 1
        self.hinted.append(options.phrase_hints)
        handle = StreamHandle(self._generation % self.info.max_streams, self._generation)
        self._streams[handle] = _Stream(options, policy, sink)
        return handle

    def audio(self, handle: StreamHandle, pcm: NDArray[np.float32]) -> None:
        with self._lock:
            self.queued_samples += len(pcm)
            self.most_queued_s = max(self.most_queued_s, self.queued_samples / RATE_HZ)
        self._inbox.put(lambda: self._on_audio(handle, pcm))

    def flush(self, handle: StreamHandle) -> None:
        self._inbox.put(lambda: self._end_utterance(handle))

    def finish(self, handle: StreamHandle) -> None:
        self._inbox.put(lambda: self._on_finish(handle))

    def cancel(self, handle: StreamHandle) -> None:
        self._streams.pop(handle, None)

    def stop(self) -> None:
        self._stopped = True
        self.gate.set()
        if self._thread.is_alive():
            self._inbox.put(None)
            self._thread.join()
        for handle, stream in list(self._streams.items()):
            self._streams.pop(handle, None)
            stream.sink(Failed(ShuttingDown("the engine is stopped")))

    def _run(self) -> None:
        while (message := self._inbox.get()) is not None:
            self.gate.wait()
            message()

    def _on_audio(self, handle: StreamHandle, pcm: NDArray[np.float32]) -> None:
        with self._lock:
            self.queued_samples -= len(pcm)
        stream = self._streams.get(handle)
        if stream is None:
            return
        if self._pace:
            time.sleep(self._pace * len(pcm) / RATE_HZ)
        samples = np.concatenate([stream.pending, pcm])
        while len(samples) >= FRAME:
            self._on_frame(handle, stream, samples[:FRAME])
            samples = samples[FRAME:]
        stream.pending = samples
        if handle in self._streams:
            stream.sink(Progress(stream.frames * FRAME_S + len(samples) / RATE_HZ))
        self.handled_samples += len(pcm)

    def _on_frame(self, handle: StreamHandle, stream: _Stream, frame: NDArray[np.float32]) -> None:
        words_before = len(self._words(stream))
        is_speech = bool(np.sqrt(np.mean(frame**2)) > 0.05)
        number, stream.frames = stream.frames, stream.frames + 1
        time_s = stream.frames * FRAME_S
        if self._fail_at_s is not None and time_s >= self._fail_at_s:
            self._streams.pop(handle, None)
            stream.sink(Failed(EngineFailure("scripted failure")))
            return
        if is_speech != stream.speaking:
            stream.speaking = is_speech
            stream.sink(SpeechBegin(time_s - FRAME_S) if is_speech else SpeechEnd(time_s - FRAME_S))
        if is_speech:
            crossings = int(np.count_nonzero(np.diff(np.signbit(frame))))
            digit = min(9, max(0, round((crossings / (2 * FRAME_S) - 200) / 100)))
            if stream.runs and stream.runs[-1][0] == digit and stream.runs[-1][2] == number:
                stream.runs[-1] = (digit, stream.runs[-1][1], number + 1)
            else:
                stream.runs.append((digit, number, number + 1))
        words = self._words(stream)
        streaming = stream.options.mode is Mode.STREAMING
        if streaming and stream.options.interim_results and is_speech and words:
            hypothesis = Hypothesis(words)
            self.told_results += 1
            stream.sink(Partial(hypothesis, len(words) - 1, stream.index, stream.start_s, time_s))
        grew = streaming and len(words) > words_before
        has_words = bool(words) if streaming else bool(stream.runs)
        if stream.policy.observe(FrameEvidence(time_s, is_speech, has_words, grew, stream.start_s)):
            self._end_utterance(handle)

    def _words(self, stream: _Stream) -> tuple[Word, ...]:
        return tuple(
            Word(self._spell(digit), first * FRAME_S, last * FRAME_S, 0.9)
            for digit, first, last in stream.runs
            if last - first >= 2
        )

    def _end_utterance(self, handle: StreamHandle) -> None:
        stream = self._streams.get(handle)
        if stream is None:
            return
        words = self._words(stream)
        if words:
            alternatives = [Hypothesis(words, 0.0, 0.9)]
            alternatives += [Hypothesis(words[:-1], -float(n), 0.1) for n in range(1, stream.options.max_alternatives)]
            kept = tuple(alternatives[: max(1, min(len(words), len(alternatives)))])
            self.told_results += 1
            stream.sink(Final(kept, stream.index, words[0].start_s, words[-1].end_s))
            stream.index += 1
        stream.runs.clear()
        stream.start_s = stream.frames * FRAME_S

    def _on_finish(self, handle: StreamHandle) -> None:
        stream = self._streams.get(handle)
        if stream is None:
            return
        if len(stream.pending):
            padded = np.zeros(FRAME, dtype=np.float32)
            padded[: len(stream.pending)] = stream.pending
            self._on_frame(handle, stream, padded)
        self._end_utterance(handle)
        if self._streams.pop(handle, None) is not None:
            stream.sink(Finished())
