"""How many streams a server holds: more and more of them until the objective breaks, then between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asr_service.bench.figures import Figures

# The largest number is known to this share of it; a run takes a minute or more.
RESOLUTION = 0.05


@dataclass(frozen=True, slots=True)
class Objective:
    """What a server that holds its streams keeps to.

    Attributes:
        word_p95_s: 95 % of the words are shown this soon after they ended.
        worse_by: points of word error rate above that of the same calls, each alone.
    """

    word_p95_s: float = 1.5
    worse_by: float = 0.3

    def broken(self, figures: Figures) -> list[str]:
        """What of it does not hold, for people; empty where all of it does."""
        problems = []
        if figures.refused:
            problems.append(f"{figures.refused} {'stream was' if figures.refused == 1 else 'streams were'} refused")
        problems += [
            f"{count} stream{'s' * (count > 1)} ended with {status}" for status, count in sorted(figures.failed.items())
        ]
        if figures.word is None:
            problems.append("no word came")
        elif figures.word.p95 > self.word_p95_s:
            problems.append(f"p95 of the words is {figures.word.p95:.2f} s, over {self.word_p95_s:g} s")
        worse_by = figures.quality.worse_by if figures.quality is not None else None
        if worse_by is not None and worse_by > self.worse_by:
            problems.append(f"the word error rate is {worse_by:.2f} points above that of one stream")
        return problems


@dataclass(frozen=True, slots=True)
class RampResult:
    """What a ramp found.

    Attributes:
        largest: number of streams that held, 0 where none did.
        broke_at: the smallest number tried that did not hold; None where all did.
        generator_late_at: where the ramp ended because the generator itself was late; None where it was not.
    """

    largest: int
    broke_at: int | None
    generator_late_at: int | None = None


def ramp(measure: Callable[[int], Figures], objective: Objective, *, first: int, limit: int) -> RampResult:
    """Double the streams from `first` until the objective breaks or `limit` is reached, then halve the gap.

    A load whose generator was late says nothing about the server where the objective broke: there the ramp ends. Where
    the objective held all the same, it holds.
    """
    largest, broke_at, streams = 0, None, min(first, limit)
    while True:
        figures = measure(streams)
        if not objective.broken(figures):
            largest = streams
        elif figures.valid:
            broke_at = streams
        else:
            return RampResult(largest, broke_at, streams)
        if broke_at is None:
            if streams >= limit:
                return RampResult(largest, None)
            streams = min(2 * streams, limit)
            continue
        if broke_at - largest <= max(1, RESOLUTION * largest):
            return RampResult(largest, broke_at)
        streams = (largest + broke_at) // 2
