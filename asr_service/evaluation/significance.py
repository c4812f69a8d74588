"""Which system is better, and whether the test set can tell: two paired tests and a verdict in words.

MAPSSWE knows only segments; the paired bootstrap (Bisani and Ney 2004) draws whole speakers where it can, and so knows
that a system may suit some voices. A difference counts as shown where both agree: what decides is the larger of their
p-values, corrected by Holm's method where several pairs are compared.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr_service.evaluation.bootstrap import percentile_interval, resampled_sums, sampling_units
from asr_service.evaluation.mapsswe import MatchedPairs, mapsswe
from asr_service.evaluation.problems import refuse_if_any
from asr_service.evaluation.result import NO_INTERVAL, Evaluation, Interval, UtteranceScore

SIGNIFICANT_P = 0.05


@dataclass(frozen=True, slots=True)
class PairedBootstrap:
    """The test that draws whole units, the same for both systems.

    Attributes:
        difference: of the word error rates, first less second.
        p: two-sided, never below 2 / (samples + 1); 1 with one utterance, of which every draw is the same.
    """

    difference: float
    interval: Interval
    p: float


@dataclass(frozen=True, slots=True)
class UtteranceDifference:
    """An utterance with a different number of errors in the two systems."""

    utterance_id: str
    errors: tuple[int, int]

    @property
    def change(self) -> int:
        """Errors that the second system makes more than the first; below zero where it makes fewer."""
        return self.errors[1] - self.errors[0]


@dataclass(frozen=True, slots=True)
class PairComparison:
    """Two systems on one test set.

    Attributes:
        systems: their names, the first one's first.
        wer: word error rate of each.
        p: the larger p-value of the two tests; `adjusted_p` is the same after Holm's correction.
        better: name of the better system, None where no difference is shown.
        wins, losses, ties: utterances where the first system makes fewer errors, more, or equally many.
        changes: the utterances of the wins and losses, largest difference first.
        verdict: a sentence.
    """

    systems: tuple[str, str]
    wer: tuple[float, float]
    mapsswe: MatchedPairs
    bootstrap: PairedBootstrap
    p: float
    adjusted_p: float
    better: str | None
    wins: int
    losses: int
    ties: int
    changes: tuple[UtteranceDifference, ...]
    verdict: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All pairs of several systems on one test set; in the order of the systems.

    Attributes:
        correction: how p-values were corrected, in words.
    """

    evaluations: tuple[Evaluation, ...]
    names: tuple[str, ...]
    pairs: tuple[PairComparison, ...]
    correction: str

    @property
    def verdict(self) -> str:
        return "\n".join(pair.verdict for pair in self.pairs)

    def __str__(self) -> str:
        return f"{self.verdict}\n({self.correction})"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        head = "".join(
            f"<th>{name}</th>"
            for name in ("systems", "WER", "difference", "95 %", "MAPSSWE p", "bootstrap p", "p", "verdict")
        )
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_html_row, self.pairs))}</tbody></table>"
            f"<p>{html.escape(self.correction)}</p>"
        )


def compare(a: Evaluation, b: Evaluation, *more: Evaluation, samples: int = 2000, seed: int = 0) -> Comparison:
    """Compare two or more systems that were scored on the same utterances.

    Raises ManifestProblems, with the whole list, where utterances, references, normalisers or alignment costs differ.
    """
    evaluations = (a, b, *more)
    names = _distinct([evaluation.system or "system" for evaluation in evaluations])
    refuse_if_any(
        [
            problem
            for other, name in zip(evaluations[1:], names[1:], strict=True)
            for problem in _problems(a, other, name)
        ]
    )
    rows = [_in_order_of(a, evaluation) for evaluation in evaluations]
    drafts = [
        (
            first,
            second,
            mapsswe(_alignments(rows[first], rows[second])),
            paired_bootstrap(rows[first], rows[second], samples=samples, seed=seed),
        )
        for first, second in itertools.combinations(range(len(evaluations)), 2)
    ]
    p_values = [max(segments.p, bootstrap.p) for _, _, segments, bootstrap in drafts]
    pairs = tuple(
        _pair(
            (names[first], names[second]),
            (evaluations[first].wer, evaluations[second].wer),
            (rows[first], rows[second]),
            segments,
            bootstrap,
            p,
            adjusted,
        )
        for (first, second, segments, bootstrap), p, adjusted in zip(drafts, p_values, holm(p_values), strict=True)
    )
    correction = (
        "one comparison: p-values need no correction"
        if len(pairs) == 1
        else f"p-values corrected for {len(pairs)} comparisons by Holm's method"
    )
    return Comparison(evaluations, tuple(names), pairs, correction)


def paired_bootstrap(
    first: Sequence[UtteranceScore], second: Sequence[UtteranceScore], *, samples: int = 2000, seed: int = 0
) -> PairedBootstrap:
    """Draw speakers or utterances, the same for both systems, and look at the difference of the rates.

    p is twice the share of draws on the other side of zero, counted with one draw more so that it is never 0. Which of
    the two comes first changes signs and nothing else.
    """
    counts = np.array(
        [(a.words.errors, b.words.errors, a.words.reference_words) for a, b in zip(first, second, strict=True)],
        dtype=np.int64,
    ).reshape(-1, 3)
    over, units = sampling_units(counts, [row.reference.speaker for row in first])
    # Units are drawn by their place in an order that the first column has a part in: so the data say which is first.
    turned = units[:, [1, 0, 2]]
    order, turned_order = sorted(units.tolist()), sorted(turned.tolist())
    sign = -1 if turned_order < order else 1
    drawn = np.concatenate(list(resampled_sums(units if sign > 0 else turned, samples=samples, seed=seed)))
    differences = sign * (drawn[:, 0] - drawn[:, 1]) / np.maximum(1, drawn[:, 2])
    if order == turned_order:  # nothing tells one system from the other: each draw stands for its mirror image, too
        differences = np.concatenate([differences, -differences])
    low, high = percentile_interval(differences, 0.95)
    total = counts.sum(axis=0)
    other_side = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return PairedBootstrap(
        difference=float((total[0] - total[1]) / max(1, total[2])),
        interval=Interval(low, high, over, 0.95, samples, seed),
        p=1.0 if over == "nothing" else min(1.0, 2 * (1 + other_side) / (samples + 1)),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): the family's chance of one false difference stays at its level."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _pair(
    names: tuple[str, str],
    wer: tuple[float, float],
    rows: tuple[Sequence[UtteranceScore], Sequence[UtteranceScore]],
    segments: MatchedPairs,
    bootstrap: PairedBootstrap,
    p: float,
    adjusted_p: float,
) -> PairComparison:
    errors = [(a.words.errors, b.words.errors) for a, b in zip(*rows, strict=True)]
    changes = [
        UtteranceDifference(row.reference.utterance_id, both)
        for row, both in zip(rows[0], errors, strict=True)
        if both[0] != both[1]
    ]
    better = None
    if adjusted_p < SIGNIFICANT_P:
        better = names[0] if bootstrap.difference < 0 else names[1]
    return PairComparison(
        names,
        wer,
        segments,
        bootstrap,
        p,
        adjusted_p,
        better,
        wins=sum(change.change > 0 for change in changes),
        losses=sum(change.change < 0 for change in changes),
        ties=len(errors) - len(changes),
        changes=tuple(sorted(changes, key=lambda change: (-abs(change.change), change.utterance_id))),
        verdict=_verdict(names, wer, bootstrap, adjusted_p, better),
    )


def _verdict(
    names: tuple[str, str], wer: tuple[float, float], bootstrap: PairedBootstrap, p: float, better: str | None
) -> str:
    low, high = 100 * bootstrap.interval.low, 100 * bootstrap.interval.high
    if better is None:
        between = f"[{low:+.2f}, {high:+.2f}]" if bootstrap.interval.exists else f"({NO_INTERVAL})"
        return (
            f"No difference shown between {names[0]} and {names[1]}: WER {100 * wer[0]:.2f} % against "
            f"{100 * wer[1]:.2f} %, difference {100 * bootstrap.difference:+.2f} points {between}, p = {p:.2g}."
        )
    worse = names[1] if better == names[0] else names[0]
    if bootstrap.difference > 0:
        wer = (wer[1], wer[0])
    else:
        low, high = -high, -low
    return (
        f"{better} is better than {worse}: WER {100 * wer[0]:.2f} % against {100 * wer[1]:.2f} %, "
        f"{100 * abs(bootstrap.difference):.2f} points less [{low:.2f}, {high:.2f}], p = {p:.2g}."
    )


def _problems(first: Evaluation, other: Evaluation, name: str) -> list[str]:
    settings = [
        f"{name}: {what} {theirs}, the first system's is {ours}; score both alike"
        for what, ours, theirs in (
            ("normalizer", first.normalizer, other.normalizer),
            ("costs", first.costs, other.costs),
        )
        if ours != theirs
    ]
    ours = {row.reference.utterance_id: row for row in first.utterances}
    theirs = {row.reference.utterance_id: row for row in other.utterances}
    return [
        *settings,
        *(f"{name}: utterance {key} is missing" for key in ours if key not in theirs),
        *(f"{name}: utterance {key} is not in the first system's test set" for key in theirs if key not in ours),
        *(
            f"{name}: the reference of utterance {key} differs from the first system's"
            for key, row in ours.items()
            if key in theirs and not settings and row.scored_reference != theirs[key].scored_reference
        ),
    ]


def _in_order_of(first: Evaluation, other: Evaluation) -> list[UtteranceScore]:
    by_id = {row.reference.utterance_id: row for row in other.utterances}
    return [by_id[row.reference.utterance_id] for row in first.utterances]


def _alignments(first: Sequence[UtteranceScore], second: Sequence[UtteranceScore]) -> list[tuple[str, str]]:
    return [(a.alignment, b.alignment) for a, b in zip(first, second, strict=True)]


def _distinct(names: Sequence[str]) -> list[str]:
    """Names with a number behind those that stand there twice."""
    return [
        f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


def _html_row(pair: PairComparison) -> str:
    interval = pair.bootstrap.interval
    between = f"[{100 * interval.low:+.2f}, {100 * interval.high:+.2f}] over {interval.over}"
    cells = (
        " − ".join(pair.systems),
        f"{100 * pair.wer[0]:.2f} − {100 * pair.wer[1]:.2f} %",
        f"{100 * pair.bootstrap.difference:+.2f}",
        between if interval.exists else NO_INTERVAL,
        f"{pair.mapsswe.p:.2g}",
        f"{pair.bootstrap.p:.2g}",
        f"{pair.adjusted_p:.2g}",
        pair.verdict,
    )
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
