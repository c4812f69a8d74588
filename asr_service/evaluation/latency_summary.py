"""Speed and latency of a whole test set, from the timing of each utterance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from asr_service.evaluation.output import Timing
from asr_service.evaluation.result import UtteranceScore


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of `count` measurements, in seconds."""

    p50: float
    p90: float
    p95: float
    count: int


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """What the timings say together; None where no utterance has the figure.

    Attributes:
        utterances: how many have a timing.
        audio_s, processing_s: totals of the utterances where both are known.
        rtfx: seconds of audio recognised in one second of computation, from these totals (never a mean of ratios).
        utterance_s: computation of an utterance.
        first_partial, final, word: latencies as measured; with `unaware_` before them those of a machine that computes
            in no time. Words count one by one, whatever utterance they are in.
        emitted_words, revoked_words, revoked_share: words shown, and those of them that did not stay.
        gaps, gap_s, gap_share: stretches of speech over two seconds without a word: how many, their length together,
            and that length's share of the audio.
    """

    utterances: int
    audio_s: float
    processing_s: float
    rtfx: float | None
    utterance_s: Percentiles | None
    first_partial: Percentiles | None
    unaware_first_partial: Percentiles | None
    word: Percentiles | None
    unaware_word: Percentiles | None
    final: Percentiles | None
    unaware_final: Percentiles | None
    emitted_words: int
    revoked_words: int
    revoked_share: float | None
    gaps: int
    gap_s: float
    gap_share: float | None


def latency_summary(utterances: Iterable[UtteranceScore]) -> LatencySummary | None:
    """None where nothing was timed, as for the output of another system."""
    timed = [(row, row.output.timing) for row in utterances if row.output.timing is not None]
    if not timed:
        return None
    timings = [timing for _, timing in timed]
    lengths = [timing.audio_s if timing.audio_s is not None else row.reference.duration_s for row, timing in timed]
    both = [
        (length, timing.processing_s)
        for length, timing in zip(lengths, timings, strict=True)
        if length is not None and timing.processing_s is not None
    ]
    audio_s = math.fsum(length for length, _ in both)
    processing_s = math.fsum(spent for _, spent in both)
    heard_s = math.fsum(length for length in lengths if length is not None)
    emitted = sum(timing.emitted_words for timing in timings)
    revoked = sum(timing.revoked_words for timing in timings)
    gap_s = math.fsum(gap for timing in timings for gap in timing.uncovered_s)

    def each(value: Callable[[Timing], float | None]) -> Percentiles | None:
        return percentiles([found for timing in timings if (found := value(timing)) is not None])

    return LatencySummary(
        utterances=len(timed),
        audio_s=audio_s,
        processing_s=processing_s,
        rtfx=audio_s / processing_s if processing_s else None,
        utterance_s=each(lambda timing: timing.processing_s),
        first_partial=each(lambda timing: timing.first_partial_s),
        unaware_first_partial=each(lambda timing: timing.unaware_first_partial_s),
        word=percentiles([latency for timing in timings for latency in timing.word_latencies_s]),
        unaware_word=percentiles([latency for timing in timings for latency in timing.unaware_word_latencies_s]),
        final=each(lambda timing: timing.final_s),
        unaware_final=each(lambda timing: timing.unaware_final_s),
        emitted_words=emitted,
        revoked_words=revoked,
        revoked_share=revoked / emitted if emitted else None,
        gaps=sum(len(timing.uncovered_s) for timing in timings),
        gap_s=gap_s,
        gap_share=gap_s / heard_s if heard_s else None,
    )


def percentiles(values: Sequence[float]) -> Percentiles | None:
    """Linear interpolation between the nearest measurements (numpy's default); None without any."""
    if not values:
        return None
    p50, p90, p95 = np.percentile(values, [50, 90, 95])
    return Percentiles(float(p50), float(p90), float(p95), len(values))
