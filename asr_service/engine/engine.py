"""The engine: one thread, one model, many streams.

Life of a stream: `open` takes a slot; messages (audio, flush, finish, cancel) go through one inbox, so their order is
kept; each turn the thread drains the inbox, asks every stream for its next work, encodes the live chunks in one batch,
searches and answers; then it spends a little time on finals of live utterances, and a little on accurate ones (see
`scheduler`). The last answer is `Finished` or `Failed`, and the slot is free.

A failure stays in its slot: the stream gets `Failed`, the others go on. A batch that fails is tried again row by row.
"""

from __future__ import annotations

import enum
import functools
import math
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_service.config import EngineSettings
from asr_service.engine.accurate_lane import AccurateLane
from asr_service.engine.frames import FRAME_S
from asr_service.engine.interface import (
    EngineInfo,
    Failed,
    Progress,
    Sink,
    StreamHandle,
    StreamOptions,
    UtterancePolicy,
)
from asr_service.engine.live import ChunkedPolicy, LivePolicy
from asr_service.engine.live_lane import LiveLane
from asr_service.engine.open_streams import OpenStreams
from asr_service.engine.runner import ModelRunner
from asr_service.engine.scheduler import plan
from asr_service.engine.search_space import SearchSpace
from asr_service.engine.slots import SlotTable
from asr_service.engine.stream import Stream
from asr_service.engine.voice_activity import voice_detectors
from asr_service.engine.windowed import WindowedPolicy
from asr_service.errors import BundleError, ShuttingDown
from asr_service.model.bundle import Bundle
from asr_service.model.digest import model_hash
from asr_service.types import Mode, PhraseHint

# After this many batches in a row in which every row failed, also alone, the engine says that it is not healthy.
UNHEALTHY_AFTER = 2


class _Kind(enum.Enum):
    OPEN = enum.auto()
    AUDIO = enum.auto()
    FLUSH = enum.auto()
    FINISH = enum.auto()
    CANCEL = enum.auto()
    STOP = enum.auto()


@dataclass(frozen=True, slots=True)
class _Message:
    kind: _Kind
    handle: StreamHandle
    payload: Any = None


class BatchingEngine:
    """`interface.Engine` over a bundle."""

    def __init__(self, bundle: Bundle, settings: EngineSettings) -> None:
        """`bundle` is at the latency that is wanted already (`Bundle.at`): `engine.latency` is for who loads it.

        Raises BundleError when the bundle has wrong settings, or when its encoder cannot do what `engine.policy` asks
        for; ConfigError where the CPU lacks `engine.precision`.
        """
        self._settings = settings
        is_chunked = _is_chunked(bundle, settings)
        streams = settings.max_streams if is_chunked else 1  # nothing is cached for windows
        self._runner = ModelRunner(bundle, streams=streams, threads=settings.threads, precision=settings.precision)
        self._bundle = bundle = self._runner.bundle
        self._space = SearchSpace(bundle)
        self._new_voice = voice_detectors(bundle.directory)
        self._model_hash = model_hash(bundle.directory)  # of what was loaded, not of what lies there later
        self._slots = SlotTable(settings.max_streams)
        # Bounded by the streams' own back-pressure: a session queues at most `max_buffered_s` of audio.
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._streams = OpenStreams(self._slots)
        self._policy: LivePolicy
        if is_chunked:
            self._policy = ChunkedPolicy(self._runner, self._space)
        else:
            self._policy = WindowedPolicy(self._runner, self._space, settings)
        self._live = LiveLane(self._policy, self._streams, settings)
        self._accurate = AccurateLane(self._runner, self._space, self._streams, settings)
        self._turns = 0
        self._turn_began = math.inf  # inf: the thread waits for messages
        self._stopping = threading.Event()
        # A stream that saw the engine go on has its message in the inbox before the thread can see it stop.
        self._opening = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            model=self._bundle.name,
            languages=(self._bundle.language,),
            modes=(Mode.ACCURATE, Mode.STREAMING),
            features=(
                *("word_time_offsets", "word_confidence", "alternatives", "voice_activity_events", "flush"),
                "phrase_hints",
            ),
            max_streams=self._settings.max_streams,
            chunk_s=self._policy.step_features * FRAME_S,
            model_hash=self._model_hash,
        )

    @property
    def active_streams(self) -> int:
        return self._slots.taken

    @property
    def healthy(self) -> bool:
        is_stuck = time.monotonic() - self._turn_began > self._settings.max_turn_s
        return self._thread.is_alive() and not is_stuck and not self.failing

    @property
    def failing(self) -> bool:
        """Whether the model does nothing but fail."""
        return self._streams.failures >= UNHEALTHY_AFTER

    def start(self) -> None:
        self._thread.start()

    def prepare(self, mode: Mode, phrase_hints: tuple[PhraseHint, ...]) -> object:
        return [self._space.prepare(search_mode, phrase_hints) for search_mode in self._searched(mode)]

    def ready(self, mode: Mode, phrase_hints: tuple[PhraseHint, ...]) -> object | None:
        held = [self._space.ready(search_mode, phrase_hints) for search_mode in self._searched(mode)]
        return None if None in held else held

    def _searched(self, mode: Mode) -> tuple[Mode, ...]:
        """The modes of the searches that a stream of this mode has."""
        return self._policy.search_modes if mode is Mode.STREAMING else (mode,)

    def open(self, options: StreamOptions, policy: UtterancePolicy, sink: Sink) -> StreamHandle:
        # On the caller's thread: it takes time for many phrases, and all live streams wait for the engine's.
        opened = (self._live if options.mode is Mode.STREAMING else self._accurate).opener(options)
        with self._opening:
            if self._stopping.is_set():
                raise ShuttingDown("the engine is stopping")
            handle = self._slots.acquire()
            self._inbox.put(_Message(_Kind.OPEN, handle, (options, policy, sink, opened)))
        return handle

    def audio(self, handle: StreamHandle, pcm: NDArray[np.float32]) -> None:
        self._inbox.put(_Message(_Kind.AUDIO, handle, pcm))

    def flush(self, handle: StreamHandle) -> None:
        self._inbox.put(_Message(_Kind.FLUSH, handle))

    def finish(self, handle: StreamHandle) -> None:
        self._inbox.put(_Message(_Kind.FINISH, handle))

    def cancel(self, handle: StreamHandle) -> None:
        self._inbox.put(_Message(_Kind.CANCEL, handle))

    def stop(self) -> None:
        with self._opening:
            self._stopping.set()
        self._inbox.put(_Message(_Kind.STOP, StreamHandle(0, -1)))
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(self._settings.max_turn_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._turn_began = time.monotonic()
            busy = self.turn()
            if not busy:
                self._turn_began = math.inf
                try:
                    message = self._inbox.get(timeout=self._settings.idle_wait_s)
                except queue.Empty:
                    continue
                self._turn_began = time.monotonic()
                self._handle(message)
        self._drain()  # streams may have been opened since the last turn
        for stream in self._streams:
            self._streams.end(stream, Failed(ShuttingDown("the server is stopping")))
        self._streams.deliver()

    def turn(self) -> bool:
        """Drain the inbox; do what the lanes have to do, each within its budget. False when there was nothing.

        The engine's thread takes one turn after the other; where it was not started, whoever steps the engine does.
        """
        self._turns += 1
        self._drain()
        for stream in self._streams:
            if stream.unheard:
                self._streams.guard(stream, functools.partial(self._hear, stream))
            if stream in self._streams:
                self._streams.guard(stream, stream.work)  # which the plan asks for again
        ready = plan(self._streams)
        if ready.chunks:
            self._live.steps(ready.chunks, self._turns)
        for stream in ready.utterances:
            self._streams.guard(stream, functools.partial(self._accurate.take, stream))
        any_final = self._live.finals()
        any_accurate = self._accurate.work()
        self._report_progress()
        self._streams.deliver()
        return bool(ready.chunks) or any_final or any_accurate

    def _drain(self) -> None:
        """Handle what is in the inbox."""
        while True:
            try:
                self._handle(self._inbox.get_nowait())
            except queue.Empty:
                break

    def _handle(self, message: _Message) -> None:
        handle = message.handle
        if message.kind is _Kind.OPEN:
            options, policy, sink, opened = message.payload
            stream = Stream(
                handle,
                options,
                policy,
                sink,
                n_mels=self._bundle.model.config.n_mels,
                chunk_features=self._policy.step_features,
                lookahead_features=self._policy.lookahead_features,
                voice=self._new_voice(),
            )
            self._streams.add(stream)
            self._streams.guard(stream, functools.partial(opened, stream))
        elif (known := self._streams.get(handle)) is not None:  # else of a stream that has ended: a late message
            self._on_message(known, message)

    def _on_message(self, stream: Stream, message: _Message) -> None:
        if message.kind is _Kind.AUDIO:
            stream.unheard.append(message.payload)
        elif message.kind is _Kind.FLUSH:
            self._streams.guard(stream, functools.partial(self._flush, stream))
        elif message.kind is _Kind.FINISH:
            self._streams.guard(stream, functools.partial(self._finish, stream))
        elif message.kind is _Kind.CANCEL:
            self._streams.free(stream)

    def _hear(self, stream: Stream, *, last: bool = False) -> None:
        """Features of what has arrived: once a turn, for a call of the front end costs more than its samples."""
        pcm = np.concatenate([np.zeros(0, dtype=np.float32), *stream.unheard])
        stream.unheard.clear()
        features, levels, stream.carry = self._runner.features(pcm, stream.carry, last=last)
        stream.add(features, levels, self._turns)

    def _flush(self, stream: Stream) -> None:
        self._hear(stream)
        stream.flush()

    def _finish(self, stream: Stream) -> None:
        self._hear(stream, last=True)
        stream.finishing = True

    def _report_progress(self) -> None:
        for stream in self._streams:
            if stream.reported != stream.observed:
                stream.reported = stream.observed
                self._streams.put(stream, Progress(stream.time_s(stream.observed)))


def _is_chunked(bundle: Bundle, settings: EngineSettings) -> bool:
    """Whether live streams are encoded chunk by chunk. Positions that are not relative know full context only."""
    can_be = bundle.model.config.positions == "rotary"
    if settings.policy == "chunked" and not can_be:
        raise BundleError(
            f"{bundle.directory}: the encoder has full context only, so engine.policy cannot be 'chunked'"
        )
    return can_be if settings.policy == "auto" else settings.policy == "chunked"
