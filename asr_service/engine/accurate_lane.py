"""The lane of accurate streams: whole utterances, encoded in batches with full context and searched part by part.

A step of this lane is as short as can be, so that a turn of the engine can stop between two of them: one batch for the
encoder, a few frames of one search, or one final.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence

from asr_service.config import EngineSettings
from asr_service.engine.accurate_queue import AccurateQueue, Utterance
from asr_service.engine.interface import StreamHandle, StreamOptions
from asr_service.engine.open_streams import OpenStreams
from asr_service.engine.runner import Encoded, ModelRunner
from asr_service.engine.scheduler import Budget
from asr_service.engine.search import UtteranceSearch
from asr_service.engine.search_space import SearchSpace
from asr_service.engine.stream import FRAME_S, Stream

# Frames of `encoder_out` that a search goes along between two looks at the budget.
PART_FRAMES = 8
# Computation of the encoder for a second of audio, until it has been measured; and how fast the measure follows.
ENCODER_COST = 0.01
COST_SHARE = 0.25


class AccurateLane:
    """Belongs to the engine's thread."""

    def __init__(self, runner: ModelRunner, space: SearchSpace, streams: OpenStreams, settings: EngineSettings) -> None:
        self._runner, self._space, self._streams, self._settings = runner, space, streams, settings
        self._searches: dict[StreamHandle, UtteranceSearch] = {}
        self._queue = AccurateQueue(frames_per_stream=round(settings.accurate_queue_s / FRAME_S))
        self._encoder_cost = ENCODER_COST
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
            utterance.parts = iter(())
        self._queue.add(utterance)
        stream.next_utterance()

    def work(self) -> bool:
        """Encode and search within the budget; False when there was nothing to do."""
        if not len(self._queue):
            return False
        budget = Budget(self._settings.accurate_budget_s)
        while len(self._queue) and budget.left:
            begun = time.perf_counter()
            utterance = self._queue.next()
            if utterance.parts is None:
                self._encode(utterance)
            else:
                self._streams.guard(utterance.stream, functools.partial(self._search, utterance, utterance.parts))
            budget.spend(time.perf_counter() - begun)
        return True

    def _encode(self, first: Utterance) -> None:
        """An utterance and what goes well with it: while somebody speaks, no more than fits into the budget."""
        most_s = self._settings.accurate_batch_s
        if self._streams.any_live:
            most_s = min(most_s, self._settings.accurate_budget_s / self._encoder_cost)
        batch = self._queue.batch_with(first, most_frames=most_s / FRAME_S)

        def encode(utterances: Sequence[Utterance]) -> list[Encoded]:
            return self._runner.encode_utterances([u.features for u in utterances if u.features is not None])

        begun = time.perf_counter()
        outputs = self._streams.encode(encode, batch, [utterance.stream for utterance in batch])
        cost = (time.perf_counter() - begun) / (len(batch) * max(utterance.frames for utterance in batch) * FRAME_S)
        self._encoder_cost += COST_SHARE * (cost - self._encoder_cost)
        for utterance, encoded in zip(batch, outputs, strict=True):
            utterance.features = None
            if encoded is not None:
                utterance.parts = parts_of(encoded, PART_FRAMES)

    def _search(self, utterance: Utterance, parts: Iterator[Encoded]) -> None:
        """The next part of an utterance, or its final."""
        search = self._searches[utterance.stream.handle]
        if (part := next(parts, None)) is not None:
            search.step(part)
            return
        start_s, end_s = utterance.start * FRAME_S, utterance.end * FRAME_S
        alternatives = search.final(offset_s=start_s)
        search.reset()
        self._queue.done(utterance)
        self._streams.answer(utterance.stream, alternatives, start_s, end_s, is_last=utterance.is_last)


def parts_of(encoded: Encoded, frames: int) -> Iterator[Encoded]:
    """An encoded stretch in parts of `frames` frames of `encoder_out`, the last one shorter."""
    ratio = -(-len(encoded.phones) // max(1, len(encoded.pieces)))  # phone frames to one of `encoder_out`
    for start in range(0, len(encoded.pieces), frames):
        end = start + frames
        yield Encoded(encoded.phones[start * ratio : end * ratio], encoded.pieces[start:end], encoded.hidden[start:end])
