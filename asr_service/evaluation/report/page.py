"""Writes the page: the template with its style sheet and script inside, and the utterances as data for the script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from asr_service.errors import ConfigError
from asr_service.evaluation.report import view
from asr_service.evaluation.report.sound import data_uris
from asr_service.evaluation.result import NO_INTERVAL, Evaluation
from asr_service.evaluation.significance import Comparison

TEMPLATE = Path(__file__).parent / "template"


def write_report(
    path: Path,
    evaluation: Evaluation,
    comparison: Comparison | None = None,
    *,
    audio: bool = False,
    vocabulary: Container[str] | None = None,
) -> None:
    """Write a report of one system, or of two side by side with the verdict between them.

    Args:
        path: where to.
        evaluation: of the first system.
        comparison: of it with a second one, on the same test set; its first two systems are shown.
        audio: put recordings into the file, those with the most errors first, up to sound.MAX_AUDIO_BYTES.
        vocabulary: lower-case words, such as a bundle's lexicon; reference words outside it get a section.

    Raises ConfigError where the file cannot be written.
    """
    try:
        path.write_text(render(evaluation, comparison, audio=audio, vocabulary=vocabulary), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def render(
    evaluation: Evaluation,
    comparison: Comparison | None = None,
    *,
    audio: bool = False,
    vocabulary: Container[str] | None = None,
) -> str:
    """The page's HTML; the first two systems of `comparison` are shown."""
    evaluations = [evaluation] if comparison is None else list(comparison.evaluations[:2])
    names = [evaluation.system or "system"] if comparison is None else list(comparison.names[:2])
    sounds, unreadable = _sounds(evaluations[0]) if audio else ({}, [])
    shown = view.panels(evaluations, names, vocabulary)
    script = (TEMPLATE / "report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = view.percent
    environment.globals["no_interval"] = NO_INTERVAL
    return environment.get_template("report.html").render(
        style=_trusted((TEMPLATE / "report.css").read_text(encoding="utf-8")),
        script=_trusted(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_script_data({"systems": names, "rows": _rows(evaluations), "sounds": sounds}),
        panels=shown,
        pair=None if comparison is None else comparison.pairs[0],
        tables=view.tables(evaluations),
        pictures=view.pictures(shown),
        latency_rows=view.latency_rows(shown),
        sounds=len(sounds),
        unreadable=unreadable,
    )


def _rows(evaluations: Sequence[Evaluation]) -> list[list[Any]]:
    """One list an utterance: id, speaker, corpus, seconds, words, reference, then (errors, hypothesis, alignment) each.

    Lists are half the size of objects, and the second system's rows are put in the first one's order.
    """
    others = [{row.reference.utterance_id: row for row in other.utterances} for other in evaluations[1:]]
    rows: list[list[Any]] = []
    for row in evaluations[0].utterances:
        reference = row.reference
        entry: list[Any] = [reference.utterance_id, reference.speaker, reference.corpus, reference.duration_s]
        entry += [row.words.reference_words, row.scored_reference]
        for scored in [row, *(other[reference.utterance_id] for other in others)]:
            entry.append([scored.words.errors, scored.scored_hypothesis, scored.alignment])
        rows.append(entry)
    return rows


def _sounds(evaluation: Evaluation) -> tuple[dict[str, str], list[str]]:
    worst_first = sorted(evaluation.utterances, key=lambda row: -row.words.errors)
    return data_uris(row.reference for row in worst_first)


def _script_data(data: Any) -> Markup:
    """JSON that may stand inside a script element: no text in it can end the element or open a comment."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _trusted(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _trusted(text: str) -> Markup:
    """Our own style sheet and script, and data that _script_data made harmless."""
    return Markup(text)  # noqa: S704
