"""The engine: one thread, one model, many streams.

Life of a stream: `open` takes a slot; messages (audio, flush, finish, cancel) go through one inbox, so their order is
kept; each turn the thread drains the inbox, asks every stream for its next work, encodes the live chunks in one batch,
searches, and answers; the last answer is `Finished` or `Failed`, and the slot is free.

A failure stays in its slot: the stream gets `Failed`, the others go on.
"""

from __future__ import annotations

import enum
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_service.config import EngineSettings
from asr_service.engine.interface import (
    EngineInfo,
    Failed,
    Final,
    Finished,
    Partial,
    Progress,
    Sink,
    StreamHandle,
    StreamOptions,
    StreamOutput,
    UtterancePolicy,
)
from asr_service.engine.runner import Encoded, ModelRunner
from asr_service.engine.scheduler import plan
from asr_service.engine.search import UtteranceSearch
from asr_service.engine.search_space import SearchSpace
from asr_service.engine.slots import SlotTable
from asr_service.engine.stream import Stream, Work
from asr_service.errors import AsrError, EngineFailure, ShuttingDown
from asr_service.model.bundle import Bundle
from asr_service.types import Mode

logger = logging.getLogger(__name__)

# This many turns in a row that failed as a whole, and the engine says it is not healthy.
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
        """Raises BundleError when the bundle has no settings for the wanted latency, or wrong ones."""
        self._settings = settings
        self._bundle = bundle = bundle.at(settings.latency)
        self._runner = ModelRunner(bundle, streams=settings.max_streams, threads=settings.threads)
        self._space = SearchSpace(bundle)
        self._slots = SlotTable(settings.max_streams)
        # Bounded by the streams' own back-pressure: a session queues at most `max_buffered_s` of audio.
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._streams: dict[StreamHandle, Stream] = {}
        self._searches: dict[StreamHandle, UtteranceSearch] = {}
        self._turns = 0
        self._failures = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def info(self) -> EngineInfo:
        config = self._bundle.model.config
        return EngineInfo(
            model=self._bundle.name,
            languages=(self._bundle.language,),
            modes=(Mode.ACCURATE, Mode.STREAMING) if config.positions == "rotary" else (Mode.ACCURATE,),
            features=(
                *("word_time_offsets", "word_confidence", "alternatives", "voice_activity_events", "flush"),
                "phrase_hints",
            ),
            max_streams=self._settings.max_streams,
            chunk_s=self._bundle.streaming.chunk_frames * config.subsampling * 0.01,
        )

    @property
    def active_streams(self) -> int:
        return self._slots.taken

    @property
    def healthy(self) -> bool:
        return self._thread.is_alive() and self._failures < UNHEALTHY_AFTER

    def start(self) -> None:
        self._thread.start()

    def open(self, options: StreamOptions, policy: UtterancePolicy, sink: Sink) -> StreamHandle:
        if self._stopping.is_set():
            raise ShuttingDown("the engine is stopping")
        handle = self._slots.acquire()
        self._inbox.put(_Message(_Kind.OPEN, handle, (options, policy, sink)))
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
        self._stopping.set()
        self._inbox.put(_Message(_Kind.STOP, StreamHandle(0, -1)))
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            busy = self._turn()
            if not busy:
                try:
                    self._handle(self._inbox.get(timeout=self._settings.idle_wait_s))
                except queue.Empty:
                    continue
        for stream in list(self._streams.values()):
            self._end(stream, Failed(ShuttingDown("the server is stopping")))

    def _turn(self) -> bool:
        """Drain the inbox, do one batch of chunks and one whole utterance; False when there was nothing to do."""
        self._turns += 1
        while True:
            try:
                self._handle(self._inbox.get_nowait())
            except queue.Empty:
                break
        todo = plan(self._streams.values(), max_batch=self._settings.max_streams)
        if todo.empty:
            self._report_progress()
            return False
        if todo.chunks:
            self._encode_chunks([pair[0] for pair in todo.chunks], [pair[1] for pair in todo.chunks])
        if todo.whole is not None:
            stream, _ = todo.whole
            self._guard(stream, lambda: self._whole_utterance(stream))
        self._report_progress()
        return True

    def _handle(self, message: _Message) -> None:
        handle = message.handle
        if message.kind is _Kind.OPEN:
            options, policy, sink = message.payload
            self._streams[handle] = Stream(
                handle,
                options,
                policy,
                sink,
                n_mels=self._bundle.model.config.n_mels,
                chunk_features=self._runner.chunk_features,
                lookahead_features=self._runner.lookahead_features,
            )
            self._runner.reset(handle.slot)
            self._guard(self._streams[handle], lambda: self._open(handle, options))
            return
        stream = self._streams.get(handle)
        if stream is None:
            return  # of a stream that has ended: a late message
        if message.kind is _Kind.AUDIO:
            self._guard(stream, lambda: self._audio(stream, message.payload))
        elif message.kind is _Kind.FLUSH:
            stream.flush()
        elif message.kind is _Kind.FINISH:
            self._guard(stream, lambda: self._finish(stream))
        elif message.kind is _Kind.CANCEL:
            self._free(stream)

    def _open(self, handle: StreamHandle, options: StreamOptions) -> None:
        self._searches[handle] = self._space.new_search(options)

    def _audio(self, stream: Stream, pcm: NDArray[np.float32], *, last: bool = False) -> None:
        features, energies, stream.carry = self._runner.features(pcm, stream.carry, last=last)
        stream.add(features, energies, self._turns)

    def _finish(self, stream: Stream) -> None:
        self._audio(stream, np.zeros(0, dtype=np.float32), last=True)
        stream.finishing = True

    def _encode_chunks(self, streams: list[Stream], works: list[Work]) -> None:
        chunks = [stream.take() for stream in streams]
        slots = [stream.handle.slot for stream in streams]
        filled = [row for row, chunk in enumerate(chunks) if len(chunk)]
        encoded: dict[int, Encoded] = {}
        try:
            if filled:
                outputs = self._runner.encode_chunks(
                    [slots[r] for r in filled], [chunks[r] for r in filled], [works[r].frames for r in filled]
                )
                encoded = dict(zip(filled, outputs, strict=True))
            self._failures = 0
        except Exception:
            logger.exception("a batch of %d chunks failed", len(filled))
            self._failures += 1
            for stream in streams:
                self._end(stream, Failed(EngineFailure("the model failed on this batch")))
            return
        for row, (stream, work) in enumerate(zip(streams, works, strict=True)):
            self._guard(stream, self._chunk_done(stream, work, encoded.get(row)))

    def _chunk_done(self, stream: Stream, work: Work, encoded: Encoded | None) -> Callable[[], None]:
        def done() -> None:
            search = self._searches[stream.handle]
            if encoded is not None:
                stream.new_token = search.step(encoded)
                stream.has_words = search.has_words and stream.speech_heard
            if work.ends_utterance:
                self._final(stream, search)
            elif stream.options.interim_results and stream.has_words:
                hypothesis, stable = search.partial(offset_s=stream.time_s(stream.utterance_start))
                span = (stream.time_s(stream.utterance_start), stream.time_s(stream.encoded))
                stream.sink(Partial(hypothesis, stable, stream.utterance_index, *span))

        return done

    def _whole_utterance(self, stream: Stream) -> None:
        search = self._searches[stream.handle]
        heard = stream.speech_heard
        features = stream.take()
        if heard and len(features):
            search.step(self._runner.encode_whole(features))
        self._final(stream, search)

    def _final(self, stream: Stream, search: UtteranceSearch) -> None:
        # A model hears words in silence now and then; where no frame stood out from the room, nobody spoke.
        heard = stream.speech_heard
        alternatives = search.final(offset_s=stream.time_s(stream.utterance_start)) if heard else ()
        if alternatives:
            span = (stream.time_s(stream.utterance_start), stream.time_s(stream.encoded))
            stream.sink(Final(alternatives, stream.utterance_index, *span))
        search.reset()
        stream.next_utterance(had_words=bool(alternatives))
        if stream.finishing and stream.encoded == stream.available:
            self._end(stream, Finished())

    def _report_progress(self) -> None:
        for stream in list(self._streams.values()):
            if stream.reported != stream.observed:
                stream.reported = stream.observed
                stream.sink(Progress(stream.time_s(stream.observed)))

    def _guard(self, stream: Stream, action: Callable[[], None]) -> None:
        """Run `action`; an exception ends this stream only."""
        try:
            action()
        except AsrError as error:
            self._end(stream, Failed(error))
        except Exception:
            logger.exception("stream in slot %d failed", stream.handle.slot)
            self._end(stream, Failed(EngineFailure("the model failed on this stream")))

    def _end(self, stream: Stream, output: StreamOutput) -> None:
        self._free(stream)
        stream.sink(output)

    def _free(self, stream: Stream) -> None:
        if self._streams.pop(stream.handle, None) is not None:
            if (search := self._searches.pop(stream.handle, None)) is not None:  # none where opening it failed
                search.reset()
            self._slots.release(stream.handle)
