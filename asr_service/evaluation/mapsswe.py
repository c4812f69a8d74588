"""MAPSSWE, the matched-pair sentence-segment word error test (Gillick and Cox, ICASSP 1989), as in sc_stats.

Both systems heard the same audio, so their errors are compared segment by segment: a stretch with an error of at least
one system, closed by two words in a row that both have right. Errors of different segments are then nearly
independent, and the mean of their differences is compared with its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

# Words that both systems have right, one after the other, that close a segment; sc_stats' default.
BUFFER_WORDS = 2


@dataclass(frozen=True, slots=True)
class MatchedPairs:
    """Outcome of the test.

    Attributes:
        segments: how many; segments where both systems have the same number of errors count too.
        errors: of each system, all segments together.
        mean_difference, std_dev: of the errors of the first system less those of the second, per segment.
        z: standard normal under the hypothesis that both systems make equally many errors; below zero where the first
            makes fewer.
        p: two-sided.
    """

    segments: int
    errors: tuple[int, int]
    mean_difference: float
    std_dev: float
    z: float
    p: float


def matched_segments(first: str, second: str, *, buffer_words: int = BUFFER_WORDS) -> Iterator[tuple[int, int]]:
    """The errors of both systems in each segment of one utterance, from its two alignments (strings of C, S, D, I).

    Unlike sc_stats this also sees words that only the second system inserts after the last reference word.
    """
    errors, good = [0, 0], 0
    open_segment = False
    for slots in zip(_reference_slots(first), _reference_slots(second), strict=True):
        inserted = any(slot.startswith("I") for slot in slots)
        if inserted:
            good = 0  # an error between two words that are right parts them
        right = all(slot.endswith("C") for slot in slots)
        if inserted or (slots[0] and not right):
            open_segment = True
        for system, slot in enumerate(slots):
            errors[system] += len(slot) - slot.count("C")
        good = good + 1 if right else 0
        if open_segment and good == buffer_words:
            yield errors[0], errors[1]
            errors, good, open_segment = [0, 0], 0, False
    if open_segment:
        yield errors[0], errors[1]


def _reference_slots(operations: str) -> Iterator[str]:
    """For each reference word the insertions before it and its own operation; last, the insertions at the end."""
    begin = 0
    for index, operation in enumerate(operations):
        if operation != "I":
            yield operations[begin : index + 1]
            begin = index + 1
    yield operations[begin:]


def mapsswe(alignments: Iterable[tuple[str, str]]) -> MatchedPairs:
    """Test two systems by the alignments of each utterance, the same reference in both.

    z = mean / (s / √n) over n segments, s with n − 1. Where all differ by the same amount, s is zero and says nothing:
    then p is the sign test's, 2^(1−n), and z the quantile that belongs to it. Without a segment, or with equal errors
    in all of them, z is 0 and p is 1.

    Raises ValueError for alignments with reference texts of different lengths.
    """
    segments = [segment for first, second in alignments for segment in matched_segments(first, second)]
    errors = (sum(first for first, _ in segments), sum(second for _, second in segments))
    differences = [first - second for first, second in segments]
    count = len(differences)
    mean = math.fsum(differences) / count if count else 0.0
    squares = math.fsum((difference - mean) ** 2 for difference in differences)
    std_dev = math.sqrt(squares / (count - 1)) if count > 1 else 0.0
    if std_dev > 0:
        z = mean / (std_dev / math.sqrt(count))
        p = math.erfc(abs(z) / math.sqrt(2))
    elif mean:
        p = 2.0 ** (1 - min(count, 1000))
        z = math.copysign(-NormalDist().inv_cdf(p / 2), mean)
    else:
        z, p = 0.0, 1.0
    return MatchedPairs(count, errors, mean, std_dev, z, p)
