"""What the report's template shows, taken from evaluations: figures as texts, tables, pictures."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

from asr_service.evaluation.breakdown import Breakdown, Group, audio_length_s, breakdown, breakdowns
from asr_service.evaluation.calibration import Calibration, calibration
from asr_service.evaluation.confusions import Confusions, OutOfVocabulary, confusions, out_of_vocabulary
from asr_service.evaluation.latency_summary import LatencySummary, Percentiles, latency_summary
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.report import plots
from asr_service.evaluation.result import NO_INTERVAL, Evaluation

STYLES = ("series-a", "series-b")
LATENCIES = (
    ("first partial", "first_partial"),
    ("word", "word"),
    ("final", "final"),
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One system's part of the page."""

    name: str
    style: str
    evaluation: Evaluation
    latency: LatencySummary | None
    calibration: Calibration | None
    confusions: Confusions
    unknown: OutOfVocabulary | None

    @property
    def facts(self) -> list[tuple[str, str]]:
        about = self.evaluation.about
        order = ["model", "model_hash", "command", "machine", "commit", "date"]
        names = [name for name in order if name in about] + sorted(set(about) - set(order))
        return [(name.replace("_", " "), about[name]) for name in names]


@dataclass(frozen=True, slots=True)
class Row:
    """A group with a place on the axis of its table, for each system."""

    name: str
    utterances: int
    words: int
    cells: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Table:
    field: str
    axis: str
    rows: tuple[Row, ...]


def panels(evaluations: Sequence[Evaluation], names: Sequence[str], vocabulary: Container[str] | None) -> list[Panel]:
    return [
        Panel(
            name,
            style,
            evaluation,
            latency_summary(evaluation.utterances),
            calibration(evaluation),
            confusions(evaluation),
            None if vocabulary is None else out_of_vocabulary(evaluation, vocabulary),
        )
        for name, style, evaluation in zip(names, STYLES, evaluations, strict=False)
    ]


def tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """Breakdowns of the first system, and the same groups of the second: both have the same utterances."""
    alike = _alike(evaluations)
    first = breakdowns(alike[0])
    others = [[breakdown(other, one.field) for one in first] for other in alike[1:]]
    return [_table([one, *(other[index] for other in others)]) for index, one in enumerate(first)]


def _alike(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """With what the first system's file knows of each utterance, and its length by the first that knows that."""
    known: dict[str, Reference] = {}
    for row in (row for evaluation in evaluations for row in evaluation.utterances):
        reference = known.setdefault(row.reference.utterance_id, row.reference)
        if reference.duration_s is None:
            known[reference.utterance_id] = replace(reference, duration_s=audio_length_s(row))
    rows = [
        [replace(row, reference=known[row.reference.utterance_id]) for row in one.utterances] for one in evaluations
    ]
    return [replace(one, utterances=tuple(alike)) for one, alike in zip(evaluations, rows, strict=True)]


def _table(parts: Sequence[Breakdown]) -> Table:
    by_name = [{group.name: group for group in part.groups} for part in parts]
    highest = max((group.interval.high for part in parts for group in part.groups), default=0.0)
    upper = plots.ceiling(highest)
    rows = tuple(
        Row(
            group.name,
            group.utterances,
            group.words.reference_words,
            tuple(_cell(names[group.name], upper, style) for names, style in zip(by_name, STYLES, strict=False)),
        )
        for group in parts[0].groups
    )
    return Table(parts[0].field, percent(upper, 0), rows)


def _cell(group: Group, upper: float, style: str) -> dict[str, Any]:
    low, high = group.interval.low, group.interval.high
    return {
        "style": style,
        "wer": percent(group.wer),
        "interval": f"{100 * low:.1f} – {100 * high:.1f} %" if group.interval.exists else NO_INTERVAL,
        "ranges": group.interval.exists,
        "left": round(100 * min(1, low / upper), 2),
        "width": round(100 * (min(1, high / upper) - min(1, low / upper)), 2),
        "dot": round(100 * min(1, group.wer / upper), 2),
    }


def pictures(shown: Sequence[Panel]) -> list[dict[str, Any]]:
    """Distribution of the utterances' rates, calibration, latency: those that there are figures for."""
    found: list[dict[str, Any]] = []
    rates = [
        plots.Series(
            panel.name,
            [row.words.rate for row in panel.evaluation.utterances if row.words.reference_words],
            panel.style,
        )
        for panel in shown
    ]
    if all(one.values for one in rates):
        title = "Utterances by their word error rate"
        note = "The last bar is everything from 100 % on."
        picture = plots.histogram(rates, upper=1.05, bins=21, x_label="word error rate", title=title)
        found.append({"title": title, "picture": picture, "note": note})
    judged = [
        (
            plots.Series(panel.name, [one.confidence for one in panel.calibration.bins], panel.style),
            [one.accuracy for one in panel.calibration.bins],
        )
        for panel in shown
        if panel.calibration is not None
    ]
    if judged:
        title = "Reliability of word confidences"
        note = "; ".join(_calibration_note(panel) for panel in shown if panel.calibration is not None)
        found.append({"title": title, "picture": plots.reliability(judged, title=title), "note": note})
    found += _latency_picture(shown)
    return found


def _latency_picture(shown: Sequence[Panel]) -> list[dict[str, Any]]:
    lines = []
    for panel in shown:
        timings = [row.output.timing for row in panel.evaluation.utterances if row.output.timing is not None]
        aware = [value for timing in timings for value in timing.word_latencies_s]
        unaware = [value for timing in timings for value in timing.unaware_word_latencies_s]
        if aware:
            lines.append(plots.Series(panel.name, aware, panel.style))
        if unaware:
            lines.append(plots.Series(panel.name, unaware, panel.style, dashed=True))
    if not lines or max(max(line.values) for line in lines) <= 0:
        return []
    title = "Latency of words"
    note = "Seconds from a word's end until it was shown and stayed. Dashed: a machine that computes in no time."
    return [{"title": title, "picture": plots.cumulative(lines, x_label="seconds", title=title), "note": note}]


def _calibration_note(panel: Panel) -> str:
    judged = panel.calibration
    assert judged is not None
    auc = "" if judged.auc is None else f", AUC {judged.auc:.3f}"
    left = f", {judged.left_out} words left out" if judged.left_out else ""
    return f"{panel.name}: ECE {judged.ece:.3f}{auc} ({judged.words} words{left})"


def latency_rows(shown: Sequence[Panel]) -> list[dict[str, Any]]:
    """A row for each system, kind of latency and awareness."""
    rows = []
    for panel in shown:
        if panel.latency is None:
            continue
        measures = [("computation of an utterance", panel.latency.utterance_s)]
        for name, field in LATENCIES:
            measures.append((name, getattr(panel.latency, field)))
            measures.append((f"{name}, computation unaware", getattr(panel.latency, f"unaware_{field}")))
        rows += [
            {"system": panel.name, "style": panel.style, "name": name, "values": _seconds(found)}
            for name, found in measures
            if found is not None
        ]
    return rows


def _seconds(found: Percentiles) -> list[str]:
    return [f"{found.p50:.2f}", f"{found.p90:.2f}", f"{found.p95:.2f}", str(found.count)]


def percent(value: float | None, digits: int = 1) -> str:
    """A rate for people; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.{digits}f} %"
