"""Evaluations as JSON files, in the form that schema/evaluation-1.json describes.

The figures come first, then one result a line, so that a file can be written and looked at piece by piece. Nothing that
is not a number is ever written: a rate without reference words is null.
"""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from asr_service.errors import ConfigError
from asr_service.evaluation.bootstrap import wer_interval
from asr_service.evaluation.latency_summary import latency_summary
from asr_service.evaluation.problems import refuse_if_any
from asr_service.evaluation.references.text import file_text
from asr_service.evaluation.result import Evaluation, Interval, UtteranceScore
from asr_service.evaluation.store_rows import NotAnEvaluation, array, mapping, number, read_row, text, whole, write_row

SCHEMA_VERSION = 1
SCHEMA_PATH = Path(__file__).parent / "schema" / "evaluation-1.json"
# Always there, null where unknown.
ABOUT = ("model_hash", "command", "machine", "commit", "date")


def save(evaluation: Evaluation, path: Path) -> None:
    """Write `evaluation` to `path`, one result after the other: memory stays that of one.

    Raises ConfigError where the file cannot be written, ManifestProblems for times that are not finite.
    """
    refuse_if_any([problem for row in evaluation.utterances for problem in _not_finite(row)])
    try:
        with path.open("w", encoding="utf-8") as file:
            head = json.dumps(figures(evaluation), ensure_ascii=False, allow_nan=False, indent=1)
            file.write(head.removesuffix("\n}") + ',\n "results": [')
            for index, row in enumerate(evaluation.utterances):
                line = json.dumps(write_row(row), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
                file.write((",\n" if index else "\n") + line)
            file.write("\n ]\n}\n")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """Everything but the results: what is at the top of the file."""
    words, interval = evaluation.words, evaluation.wer_interval
    speed = latency_summary(evaluation.utterances)
    return {
        "schema_version": SCHEMA_VERSION,
        "system": evaluation.system,
        "normalizer": evaluation.normalizer,
        "costs": evaluation.costs,
        "wer": _finite(evaluation.wer),
        "wer_ci95": _ci95(evaluation) if words.reference_words and interval.exists else None,
        "wer_interval": asdict(interval),
        "cer": _finite(evaluation.cer),
        "ser": evaluation.ser,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "reference_words": words.reference_words,
        "utterances": len(evaluation.utterances),
        "rtfx": None if speed is None else speed.rtfx,
        "latency": None if speed is None else asdict(speed),
        "about": {name: evaluation.about.get(name) for name in ABOUT}
        | {name: value for name, value in evaluation.about.items() if name not in ABOUT},
    }


def load(path: Path) -> Evaluation:
    """Read what `save` wrote.

    Raises ManifestProblems, with the whole list, where the file is no evaluation, is of another schema version, names
    an utterance twice, or its figures are not those of its results.
    """
    try:
        document = json.loads(file_text(path), parse_constant=_refuse_constant)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    try:
        head = _read_head(document)
        rows = array(document, "results")
    except NotAnEvaluation as error:
        refuse_if_any([f"{path}: {error}"])
        raise  # never reached: there is one problem
    utterances: list[UtteranceScore] = []
    problems: list[str] = []
    for index, row in enumerate(rows):
        try:
            utterances.append(read_row(row))
        except NotAnEvaluation as error:
            problems.append(f"{path}: results[{index}]: {error}")
    times = Counter(row.reference.utterance_id for row in utterances)
    problems += [f"{path}: {name} stands there {count} times" for name, count in times.items() if count > 1]
    refuse_if_any(problems)
    evaluation = Evaluation(**head, utterances=tuple(utterances))
    refuse_if_any([f"{path}: {problem}" for problem in _contradictions(document, evaluation)])
    if len(utterances) < 2:  # files of before have an interval of no width there
        evaluation = replace(evaluation, wer_interval=replace(evaluation.wer_interval, over="nothing"))
    return evaluation


def _read_head(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict) or "schema_version" not in document:
        raise NotAnEvaluation("no evaluation: schema_version is missing")
    if document["schema_version"] != SCHEMA_VERSION:
        raise NotAnEvaluation(f"schema_version must be {SCHEMA_VERSION}, not {document['schema_version']!r}")
    interval = mapping(document, "wer_interval")
    about = mapping(document, "about")
    for name in ABOUT:
        if name not in about:
            raise NotAnEvaluation(f"about.{name} is missing")
    for name, value in about.items():
        if not (isinstance(value, str) or (value is None and name in ABOUT)):
            raise NotAnEvaluation(f"about.{name} must be a text")
    if not text(document, "normalizer"):
        raise NotAnEvaluation("normalizer must not be empty: a score means nothing without it")
    return {
        "system": text(document, "system"),
        "normalizer": text(document, "normalizer"),
        "costs": text(document, "costs"),
        "wer_interval": Interval(
            number(interval, "low"),
            number(interval, "high"),
            text(interval, "over"),
            number(interval, "level"),
            whole(interval, "samples"),
            whole(interval, "seed"),
        ),
        "about": {name: value for name, value in about.items() if value is not None},
    }


def _contradictions(document: dict[str, Any], evaluation: Evaluation) -> list[str]:
    """Figures at the top that are not what the results say."""
    computed = figures(evaluation)
    hidden = len(evaluation.utterances) > 1 and not evaluation.wer_interval.exists
    return ["wer_interval is over nothing, but there are several utterances"] * hidden + [
        f"{name} is {document[name]!r}, the results say {value!r}" if name in document else f"{name} is missing"
        for name, value in computed.items()
        if name != "about" and (name not in document or document[name] != value)
    ]


def _ci95(evaluation: Evaluation) -> list[float]:
    interval = evaluation.wer_interval
    if interval.level != 0.95:
        interval = wer_interval(
            [row.words.errors for row in evaluation.utterances],
            [row.words.reference_words for row in evaluation.utterances],
            [row.reference.speaker for row in evaluation.utterances],
            samples=interval.samples,
            seed=interval.seed,
        )
    return [interval.low, interval.high]


def _finite(rate: float) -> float | None:
    return rate if math.isfinite(rate) else None


def _not_finite(row: UtteranceScore) -> list[str]:
    reference, timing = row.reference, row.output.timing
    values: list[Any] = [reference.offset_s, reference.duration_s, *reference.fields.values()]
    values += [value for word in row.output.words for value in (word.start_s, word.end_s, word.confidence)]
    if timing is not None:
        for name in type(timing).__slots__:
            value = getattr(timing, name)
            values += value if isinstance(value, tuple) else [value]
    wrong = [value for value in values if isinstance(value, float) and not math.isfinite(value)]
    return [f"{reference.utterance_id}: {wrong[0]} among its times, confidences or fields"] if wrong else []


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
