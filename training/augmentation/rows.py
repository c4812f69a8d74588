"""What is heard in each row of a batch: an utterance, or neighbouring ones of a speaker with pauses between them.

Recognisers trained on lone utterances lose the first words after a pause and the ends of long recordings (Narayanan et
al., "Recognizing long-form speech using streaming end-to-end models", 2019).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from training.example import Example
from training.recipe import AugmentConfig


@dataclass(frozen=True, slots=True)
class Row:
    """Examples spoken one after another.

    Attributes:
        parts: their indices.
        pauses_s: silence before each of them and after the last, one more than there are parts.
    """

    parts: tuple[int, ...]
    pauses_s: tuple[float, ...]

    def duration_s(self, examples: Sequence[Example]) -> float:
        return sum(examples[i].duration_s for i in self.parts) + sum(self.pauses_s)


def plain_rows(indices: Sequence[int]) -> list[Row]:
    """Each utterance alone, as it was recorded."""
    return [Row((index,), (0.0, 0.0)) for index in indices]


def draw_rows(
    indices: Sequence[int], examples: Sequence[Example], config: AugmentConfig, rng: random.Random
) -> list[Row]:
    """Rows made from a batch's utterances, no more than its padded seconds hold, or one.

    Where rows become longer some of the utterances are left out, at random; joined rows hold neighbours instead.
    """
    longest_s = max(examples[i].duration_s for i in indices)
    budget_s = longest_s * len(indices)
    rows = plain_rows(indices)
    if rng.random() < config.join_probability and longest_s < config.join_longest_s:
        length_s = rng.uniform(longest_s, config.join_longest_s)
        firsts = rng.sample(list(indices), max(1, int(budget_s / length_s)))
        rows = [_neighbours(first, examples, length_s, config.pause_s, rng) for first in firsts]
    if rng.random() < config.pad_probability:
        rows = [
            Row(row.parts, (rng.uniform(*config.pad_s), *row.pauses_s[1:-1], rng.uniform(*config.pad_s)))
            for row in rows
        ]
        row_s = max(row.duration_s(examples) for row in rows)
        rows = rng.sample(rows, min(len(rows), max(1, int(budget_s / row_s))))
    return rows


def _neighbours(
    first: int, examples: Sequence[Example], length_s: float, pause_s: tuple[float, float], rng: random.Random
) -> Row:
    """An utterance with its speaker's next ones, then those before it, up to a length."""
    parts, pauses = [first], [0.0, 0.0]
    speaker, total_s = examples[first].speaker, examples[first].duration_s
    for step in (1, -1):
        at = first + step
        while speaker and 0 <= at < len(examples) and examples[at].speaker == speaker:
            gap_s = rng.uniform(*pause_s)
            total_s += gap_s + examples[at].duration_s
            if total_s > length_s:
                return Row(tuple(parts), tuple(pauses))
            parts.insert(len(parts) if step == 1 else 0, at)
            pauses.insert(len(pauses) - 1 if step == 1 else 1, gap_s)
            at += step
    return Row(tuple(parts), tuple(pauses))
