"""Where the errors are: word error rates of groups of utterances, by what is known of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from asr_service.evaluation.bootstrap import wer_interval
from asr_service.evaluation.reference import FieldValue
from asr_service.evaluation.result import Evaluation, Interval, UtteranceScore
from asr_service.evaluation.wer import WordErrors

# The manifest field with a signal-to-noise ratio in decibels; where a manifest has none, snr.with_snr estimates it.
SNR_FIELD = "snr_db"
# Edges between bins; a value on an edge belongs to the upper one.
EDGES: dict[str, tuple[float, ...]] = {
    "duration": (2, 5, 10, 15, 20, 30),
    "speaking rate": (1.5, 2, 2.5, 3, 3.5),
    SNR_FIELD: (0, 5, 10, 15, 20, 30),
}
UNITS = {"duration": "s", "speaking rate": "words/s", SNR_FIELD: "dB"}
# A field with more numbers than that is cut into fifths of the utterances.
MAX_NUMBERS = 10
# Of a field with more groups, those with the most words are shown and the rest is one group.
MAX_GROUPS = 40


@dataclass(frozen=True, slots=True)
class Group:
    """Utterances with something in common."""

    name: str
    utterances: int
    words: WordErrors
    interval: Interval

    @property
    def wer(self) -> float:
        return self.words.rate


@dataclass(frozen=True, slots=True)
class Breakdown:
    """An evaluation by one field. The groups together are all its utterances; bins stand in order, names by words."""

    field: str
    groups: tuple[Group, ...]


def fields(evaluation: Evaluation) -> list[str]:
    """What this evaluation can be broken down by: whatever is known of an utterance and differs between two."""
    names = ["corpus", "speaker", "duration", "speaking rate"]
    names += sorted({name for row in evaluation.utterances for name in row.reference.fields})
    return [name for name in names if len({_value(row, name) for row in evaluation.utterances}) > 1]


def breakdown(evaluation: Evaluation, field: str, *, samples: int = 1000) -> Breakdown:
    """The groups of one field: `corpus`, `speaker`, `duration`, `speaking rate` or any field of the manifest.

    Utterances without it are a group of their own, "unknown". Speaking rate is reference words per second of audio.
    """
    values = [_value(row, field) for row in evaluation.utterances]
    names, order = _groups(field, values)
    members: dict[str, list[UtteranceScore]] = {}
    for row, name in zip(evaluation.utterances, names, strict=True):
        members.setdefault(name, []).append(row)
    if order is None:
        order = sorted(members, key=lambda name: (-_reference_words(members[name]), name))
        if len(order) > MAX_GROUPS:
            rest = f"{len(order) - MAX_GROUPS + 1} others"
            members[rest] = [row for name in order[MAX_GROUPS - 1 :] for row in members[name]]
            order = [*order[: MAX_GROUPS - 1], rest]
    return Breakdown(field, tuple(_group(name, members[name], samples) for name in order if name in members))


def breakdowns(evaluation: Evaluation, *, samples: int = 1000) -> tuple[Breakdown, ...]:
    """One for each of `fields`; those whose every group is a single utterance say nothing and are left out."""
    found = (breakdown(evaluation, field, samples=samples) for field in fields(evaluation))
    return tuple(one for one in found if any(group.utterances > 1 for group in one.groups[: MAX_GROUPS - 1]))


def _value(row: UtteranceScore, field: str) -> FieldValue | None:
    reference = row.reference
    if field == "corpus":
        return reference.corpus or None
    if field == "speaker":
        return reference.speaker or None
    if field in {"duration", "speaking rate"}:
        length = audio_length_s(row)
        if not length or field == "duration":
            return length
        return row.words.reference_words / length
    return reference.fields.get(field)


def audio_length_s(row: UtteranceScore) -> float | None:
    """By the manifest, which is the same for every system; otherwise what was recognised."""
    timing = row.output.timing
    if row.reference.duration_s is not None or timing is None:
        return row.reference.duration_s
    return timing.audio_s


def _groups(field: str, values: Sequence[FieldValue | None]) -> tuple[list[str], list[str] | None]:
    """The group of each value, and the groups' order; None leaves it to their size."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    all_numbers = len(numbers) == sum(value is not None for value in values)
    if not all_numbers or (field not in EDGES and len(set(numbers)) <= MAX_NUMBERS):
        return ["unknown" if value is None else str(value) for value in values], None
    edges = EDGES.get(field) or sorted(set(np.quantile(numbers, [0.2, 0.4, 0.6, 0.8]).tolist()))
    unit = f" {UNITS[field]}" if field in UNITS else ""
    told = _told(edges)
    names = [f"under {told[0]}{unit}"]
    names += [f"{low} to {high}{unit}" for low, high in pairwise(told)]
    names.append(f"from {told[-1]}{unit}")
    groups = ["unknown" if value is None else names[bisect_right(edges, float(value))] for value in values]
    return groups, [*names, "unknown"]


def _told(edges: Sequence[float]) -> list[str]:
    """Each edge by another name, for groups go by theirs: with few digits if they tell them apart, as 17 always do."""
    for digits in (6, 15, 17):
        told = [f"{edge:.{digits}g}" for edge in edges]
        if len(set(told)) == len(edges) and not any("e+" in name for name in told):
            break
    return told


def _reference_words(rows: Sequence[UtteranceScore]) -> int:
    return sum(row.words.reference_words for row in rows)


def _group(name: str, rows: Sequence[UtteranceScore], samples: int) -> Group:
    interval = wer_interval(
        [row.words.errors for row in rows],
        [row.words.reference_words for row in rows],
        [row.reference.speaker for row in rows],
        samples=samples,
    )
    return Group(name, len(rows), sum((row.words for row in rows), WordErrors()), interval)
