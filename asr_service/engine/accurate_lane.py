"""The lane of accurate streams: whole utterances, encoded in batches with full context and searched part by part.

All of it is done part by part, so that a turn of the engine can stop between two of them: one block of the encoder for
a batch, a few frames of one search, a part of a final.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from asr_service.config import EngineSettings
from asr_service.engine.accurate_queue import AccurateQueue, Utterance
from asr_service.engine.frames import FRAME_S
from asr_service.engine.interface import StreamHandle, StreamOptions
from asr_service.engine.open_streams import OpenStreams
from asr_service.engine.runner import Encoded, ModelRunner, parts_of
from asr_service.engine.scheduler import Budget
from asr_service.engine.search import PART_FRAMES, UtteranceSearch
from asr_service.engine.search_space import SearchSpace
from asr_service.engine.stream import Stream
from asr_service.parts import Parts


class AccurateLane:
    """Belongs to the engine's thread."""

    def __init__(self, runner: ModelRunner, space: SearchSpace, streams: OpenStreams, settings: EngineSettings) -> None:
        self._runner, self._space, self._streams, self._settings = runner, space, streams, settings
        self._searches: dict[StreamHandle, UtteranceSearch] = {}
        self._queue = AccurateQueue(frames_per_stream=round(settings.accurate_queue_s / FRAME_S))
        self._encoding: Iterator[None] | None = None  # the batch under way
        streams.on_end(self._forget)

    def opener(self, options: StreamOptions) -> Callable[[Stream], None]:
        """What opens a stream, on the engine's thread and at no great cost; this call may come from any thread."""
        begin = self._space.searches(options)

        def opened(stream: Stream) -> None:
            self._searches[stream.handle] = begin()

        return opened

    def _forget(self, stream: Stream) -> None:
        self._queue.drop(stream)
        if (search := self._searches.pop(stream.handle, None)) is not None:
            search.reset()

    def take(self, stream: Stream) -> None:
        """All utterances of the stream that have ended, until it has enough of them waiting.

        Then it is not observed further either: its progress stops, and its client waits.
        """
        while self._queue.has_room(stream) and stream.work() is not None:
            self._take_one(stream)

    def _take_one(self, stream: Stream) -> None:
        start = stream.utterance_start
        features = stream.take()
        utterance = Utterance(stream, None, len(features), start, stream.encoded, stream.ended)
        # A model hears words in silence now and then; where no frame stood out from the room, nobody spoke.
        if stream.speech_heard and len(features):
            utterance.features = features.copy()  # a view would keep all of the stream's features alive
        else:
            utterance.parts = self._search(utterance, None)
        self._queue.add(utterance)
        stream.next_utterance()

    def work(self) -> bool:
        """Encode and search within the budget; False when there was nothing to do."""
        budget, worked = Budget(self._settings.accurate_budget_s), False
        while budget.left and (self._encoding is not None or len(self._queue)):
            begun, worked = time.perf_counter(), True
            self._part()
            budget.spend(time.perf_counter() - begun)
        return worked

    def _part(self) -> None:
        """Of the batch that is being encoded, or of the utterance whose turn it is."""
        if self._encoding is None:
            utterance = self._queue.next()
            if (parts := utterance.parts) is not None:
                self._streams.guard(utterance.stream, lambda: next(parts, None))
                return
            self._encoding = self._encode(utterance)
        if next(self._encoding, self) is self:
            self._encoding = None

    def _encode(self, first: Utterance) -> Iterator[None]:
        """An utterance and what goes well with it."""
        batch = self._queue.batch_with(first, most_frames=self._settings.accurate_batch_s / FRAME_S)

        def encode(utterances: Sequence[Utterance]) -> Parts[list[Encoded]]:
            return self._runner.utterance_parts([u.features for u in utterances if u.features is not None])

        outputs = yield from self._streams.encode(encode, batch, [utterance.stream for utterance in batch])
        for utterance, encoded in zip(batch, outputs, strict=True):
            utterance.features = None
            if encoded is not None and utterance.stream in self._streams:
                utterance.parts = self._search(utterance, encoded)

    def _search(self, utterance: Utterance, encoded: Encoded | None) -> Iterator[None]:
        """All of an utterance that is encoded, and its answer; None: nobody spoke."""
        search = self._searches[utterance.stream.handle]
        for part in parts_of(encoded, PART_FRAMES) if encoded is not None else ():
            search.step(part)
            yield
        start_s, end_s = utterance.start * FRAME_S, utterance.end * FRAME_S
        alternatives = yield from search.final_parts(offset_s=start_s)
        search.reset()
        self._queue.done(utterance)
        self._streams.answer(utterance.stream, alternatives, start_s, end_s, is_last=utterance.is_last)
