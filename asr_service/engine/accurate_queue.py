"""Whole utterances of accurate streams that wait to be encoded and searched: whose turn it is.

Utterances of one stream are answered in order; between streams the one goes first whose next utterance has waited
longest since the one before it was done, so a long file does not hold up a short one. Those that wait behind may be
encoded early, in a batch with one whose turn it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_service.engine.scheduler import fill_batch
from asr_service.engine.stream import Stream


@dataclass(slots=True, eq=False)
class Utterance:
    """A piece of a stream between two endpoints.

    Attributes:
        features: (T, F), None once they are encoded.
        frames: T.
        start, end: feature frames since the stream began.
        parts: what is still to be done, until it is answered; None until it is encoded.
        is_last: the stream ends with it.
        since: when its turn came; grows.
    """

    stream: Stream
    features: NDArray[np.float32] | None
    frames: int
    start: int
    end: int
    is_last: bool
    parts: Iterator[None] | None = None
    since: int = 0


class AccurateQueue:
    """First come, first served among streams; bounded for each stream."""

    def __init__(self, *, frames_per_stream: int) -> None:
        """`frames_per_stream`: a stream that holds so many feature frames here adds no further utterance."""
        self._most = frames_per_stream
        self._waiting: dict[Stream, deque[Utterance]] = {}
        self._count = 0

    def __len__(self) -> int:
        return sum(len(utterances) for utterances in self._waiting.values())

    def has_room(self, stream: Stream) -> bool:
        return sum(utterance.frames for utterance in self._waiting.get(stream, ())) < self._most

    def add(self, utterance: Utterance) -> None:
        self._count += 1
        utterance.since = self._count
        self._waiting.setdefault(utterance.stream, deque()).append(utterance)

    def drop(self, stream: Stream) -> None:
        """Forget all of a stream, and what was still to be done."""
        for utterance in self._waiting.pop(stream, ()):
            utterance.parts = None  # they refer to the utterance: what was encoded would wait for the garbage collector

    def next(self) -> Utterance:
        """Whose turn it is; there must be one."""
        return min((utterances[0] for utterances in self._waiting.values()), key=lambda utterance: utterance.since)

    def done(self, utterance: Utterance) -> None:
        """The first utterance of its stream has been answered."""
        utterances = self._waiting[utterance.stream]
        utterances.popleft()
        if utterances:
            self._count += 1
            utterances[0].since = self._count
        else:
            del self._waiting[utterance.stream]

    def batch_with(self, first: Utterance, *, most_frames: float) -> list[Utterance]:
        """`first` and others to encode with it, at most `most_frames` together with what pads them."""
        others = [
            utterance
            for utterances in self._waiting.values()
            for utterance in utterances
            if utterance is not first and utterance.parts is None
        ]
        return [first, *(others[i] for i in fill_batch(first.frames, [u.frames for u in others], most=most_frames))]
