"""What the engine does next: no tensors, no clocks, only who has waited longest and what fits a budget.

Four lanes, in this order: live chunks are encoded, many in one batch; they are searched; live utterances that have
ended get their finals; accurate utterances (files, unary calls) are encoded and searched. The first two lanes do all
that is ready. The other two have a budget a turn each, so that nobody who is speaking waits for them for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from asr_service.engine.stream import Stream, Work

# A batch pads every utterance to its longest; one that would be padded by more than this share of itself stays out.
MOST_PADDING = 0.25


@dataclass(frozen=True, slots=True)
class Ready:
    """What streams are ready for, the longest waiting first.

    Attributes:
        chunks: live streams with a chunk to encode.
        utterances: accurate streams with a whole utterance.
    """

    chunks: tuple[tuple[Stream, Work], ...]
    utterances: tuple[Stream, ...]


def plan(streams: Iterable[Stream]) -> Ready:
    """Pick from the streams what this turn takes up."""
    ready = sorted(
        ((stream, work) for stream in streams if (work := stream.work()) is not None),
        key=lambda pair: (pair[1].ready_since, pair[0].handle.slot),
    )
    chunks = tuple(pair for pair in ready if not pair[1].whole)
    return Ready(chunks, tuple(stream for stream, work in ready if work.whole))


class Budget:
    """What a lane may spend in one turn, in any unit: it goes on while some is left, and always does one thing."""

    def __init__(self, limit: float) -> None:
        self._left = limit
        self._any = False

    @property
    def left(self) -> bool:
        return self._left > 0 or not self._any

    def spend(self, amount: float) -> None:
        self._left -= amount
        self._any = True


def fill_batch(first: int, waiting: Sequence[int], *, most: float) -> list[int]:
    """Which utterances to encode together with one of length `first`, as indices of `waiting` (their lengths).

    Those whose lengths come nearest to it go first, as long as the batch, padded to its longest, stays within `most`
    and no utterance is padded by more than `MOST_PADDING`. The first one goes whatever its length.
    """
    longest = shortest = first
    chosen: list[int] = []
    for index in sorted(range(len(waiting)), key=lambda index: (abs(waiting[index] - first), index)):
        longest_then, shortest_then = max(longest, waiting[index]), min(shortest, waiting[index])
        if longest_then * (len(chosen) + 2) <= most and longest_then <= (1 + MOST_PADDING) * shortest_then:
            chosen.append(index)
            longest, shortest = longest_then, shortest_then
    return chosen


def batches(lengths: Sequence[int], *, most: float) -> Iterator[list[int]]:
    """All of `lengths` in batches as `fill_batch` makes them, as lists of indices."""
    left = list(range(len(lengths)))
    while left:
        first = left.pop(0)
        chosen = [left[place] for place in fill_batch(lengths[first], [lengths[index] for index in left], most=most)]
        left = [index for index in left if index not in chosen]
        yield [first, *chosen]
