"""The lane of live streams: their next steps in one batch, then the finals of utterances that have ended."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence

from asr_service.config import EngineSettings
from asr_service.engine.interface import Partial, StreamHandle, StreamOptions
from asr_service.engine.live import LiveDecoder, LivePolicy
from asr_service.engine.open_streams import DELIVERY_S, OpenStreams
from asr_service.engine.runner import Encoded
from asr_service.engine.scheduler import Budget
from asr_service.engine.stream import Stream, Work
from asr_service.parts import Parts, at_once
from asr_service.types import Hypothesis


class LiveLane:
    """Belongs to the engine's thread."""

    def __init__(self, policy: LivePolicy, streams: OpenStreams, settings: EngineSettings) -> None:
        self._policy, self._streams, self._settings = policy, streams, settings
        self._decoders: dict[StreamHandle, LiveDecoder] = {}
        self._finals: dict[StreamHandle, Iterator[None]] = {}  # that have been begun
        streams.on_end(self._forget)

    def opener(self, options: StreamOptions) -> Callable[[Stream], None]:
        """What opens a stream, on the engine's thread and at no great cost; this call may come from any thread."""
        begin = self._policy.decoders(options)

        def opened(stream: Stream) -> None:
            self._decoders[stream.handle] = begin(stream.handle.slot)

        return opened

    def _forget(self, stream: Stream) -> None:
        self._finals.pop(stream.handle, None)
        if (decoder := self._decoders.pop(stream.handle, None)) is not None:
            decoder.reset()

    def steps(self, ready: Sequence[tuple[Stream, Work]], turn: int) -> None:
        """Encode the next step of these streams in one batch, search on, show what is there."""
        inputs = [
            self._decoders[stream.handle].take(
                stream.take(), ends_utterance=work.ends_utterance, waiting=stream.available - stream.encoded
            )
            for stream, work in ready
        ]
        filled = [row for row, taken in enumerate(inputs) if taken is not None]

        def encode(rows: Sequence[int]) -> Parts[list[Encoded]]:
            yield from ()  # nothing goes before them
            taken = [features for row in rows if (features := inputs[row]) is not None]
            slots, kept = [ready[row][0].handle.slot for row in rows], [ready[row][1].frames for row in rows]
            return self._policy.encode(slots, taken, kept)

        outputs = at_once(self._streams.encode(encode, filled, [ready[row][0] for row in filled]))
        encoded = dict(zip(filled, outputs, strict=True))
        for row, (stream, work) in enumerate(ready):
            if stream in self._streams:
                self._streams.guard(stream, functools.partial(self._search, stream, work, encoded.get(row), turn))
            self._streams.deliver(older_than_s=DELIVERY_S)
        self._streams.deliver()

    def _search(self, stream: Stream, work: Work, encoded: Encoded | None, turn: int) -> None:
        decoder = self._decoders[stream.handle]
        start_s, end_s = stream.time_s(stream.utterance_start), stream.time_s(stream.encoded)
        if encoded is not None:
            stream.new_word = decoder.step(encoded)
            stream.has_words = decoder.has_words and stream.speech_heard
        stream.last_word_end_s = decoder.last_word_end_s(offset_s=start_s)
        if work.ends_utterance:
            stream.final_since = turn
        elif stream.options.interim_results and stream.speech_heard:
            hypothesis, stable = decoder.partial(offset_s=start_s)
            if hypothesis.words or stream.shows_words:  # without words: what was shown is taken back
                self._streams.put(stream, Partial(hypothesis, stable, stream.utterance_index, start_s, end_s))
            stream.shows_words = bool(hypothesis.words)

    def finals(self) -> bool:
        """Utterances that have ended, the longest waiting first, part by part within the budget; False when there was
        none.
        """
        waiting = [(stream.final_since, stream) for stream in self._streams if stream.final_since is not None]
        budget = Budget(self._settings.final_budget_s)
        for _, stream in sorted(waiting, key=lambda pair: (pair[0], pair[1].handle.slot)):
            while budget.left and stream in self._streams and stream.final_since is not None:
                begun = time.perf_counter()
                parts = self._finals.setdefault(stream.handle, self._final(stream))
                self._streams.guard(stream, functools.partial(next, parts, None))
                self._streams.deliver(older_than_s=DELIVERY_S)
                budget.spend(time.perf_counter() - begun)
        self._streams.deliver()
        return bool(waiting)

    def _final(self, stream: Stream) -> Iterator[None]:
        decoder = self._decoders[stream.handle]
        start_s, end_s = stream.time_s(stream.utterance_start), stream.time_s(stream.encoded)
        # A model hears words in silence now and then; where no frame stood out from the room, nobody spoke.
        alternatives = (yield from decoder.final_parts(offset_s=start_s)) if stream.speech_heard else ()
        decoder.reset()
        del self._finals[stream.handle]
        if stream.shows_words and not alternatives:
            self._streams.put(stream, Partial(Hypothesis(()), 0, stream.utterance_index, start_s, end_s))
        self._streams.answer(stream, alternatives, start_s, end_s, is_last=stream.ended)
        stream.final_since = None
        stream.next_utterance()
