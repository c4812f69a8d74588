"""One utterance of an evaluation as a JSON object, and back. Reading checks types, texts and counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from asr_service.evaluation.alignment import aligned_words
from asr_service.evaluation.output import Output, Timing
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.result import UtteranceScore
from asr_service.evaluation.wer import WordErrors, count_words
from asr_service.types import Word

Kind = TypeVar("Kind")
_TIMES = ("processing_s", "audio_s", "first_partial_s", "final_s", "unaware_first_partial_s", "unaware_final_s")
_COUNTS = ("emitted_words", "revoked_words")
_LISTS = ("word_latencies_s", "unaware_word_latencies_s", "uncovered_s")


class NotAnEvaluation(ValueError):
    """A field that is missing or is not what it should be; the message names it."""


def write_row(row: UtteranceScore) -> dict[str, Any]:
    reference, output = row.reference, row.output
    return {
        "id": reference.utterance_id,
        "reference": reference.text,
        "hypothesis": output.text,
        "scored_reference": row.scored_reference,
        "scored_hypothesis": row.scored_hypothesis,
        "alignment": row.alignment,
        "errors": row.words.errors,
        "reference_words": row.words.reference_words,
        "characters": [
            row.characters.substitutions,
            row.characters.deletions,
            row.characters.insertions,
            row.characters.reference_words,
        ],
        "audio": None if reference.audio_path is None else str(reference.audio_path),
        "offset_s": reference.offset_s,
        "duration_s": reference.duration_s,
        "speaker": reference.speaker,
        "corpus": reference.corpus,
        "fields": dict(reference.fields),
        "words": [[word.text, word.start_s, word.end_s, word.confidence] for word in output.words],
        "timing": None if output.timing is None else {name: getattr(output.timing, name) for name in Timing.__slots__},
    }


def read_row(row: Any) -> UtteranceScore:
    """Raises NotAnEvaluation for a missing field, a wrong type, or counts that the alignment contradicts."""
    utterance_id = text(row, "id")
    reference = Reference(
        utterance_id,
        text(row, "reference"),
        None if _field(row, "audio") is None else Path(text(row, "audio")),
        number(row, "offset_s"),
        _number_or_none(row, "duration_s"),
        text(row, "speaker"),
        text(row, "corpus"),
        _fields(mapping(row, "fields")),
    )
    output = Output(utterance_id, text(row, "hypothesis"), tuple(map(_word, array(row, "words"))), _timing(row))
    alignment = text(row, "alignment")
    said, heard = text(row, "scored_reference"), text(row, "scored_hypothesis")
    _check_alignment(said.split(), heard.split(), alignment)
    words = count_words(alignment)
    if (whole(row, "errors"), whole(row, "reference_words")) != (words.errors, words.reference_words):
        raise NotAnEvaluation("errors and reference_words are not those of the alignment")
    characters = array(row, "characters")
    if len(characters) != 4 or not all(type(count) is int and count >= 0 for count in characters):
        raise NotAnEvaluation("characters must be four counts")
    return UtteranceScore(reference, output, said, heard, words, WordErrors(*characters), alignment)


def _check_alignment(said: list[str], heard: list[str], alignment: str) -> None:
    letters = {letter: alignment.count(letter) for letter in "CSDI"}
    if sum(letters.values()) != len(alignment):
        raise NotAnEvaluation("alignment must be made of C, S, D and I")
    if len(alignment) - letters["I"] != len(said) or len(alignment) - letters["D"] != len(heard):
        raise NotAnEvaluation("alignment does not have the lengths of the texts")
    for pair in aligned_words(said, heard, alignment):
        if pair.operation in "CS" and (pair.operation == "C") != (pair.reference == pair.hypothesis):
            raise NotAnEvaluation(f"alignment calls {pair.reference!r} and {pair.hypothesis!r} {pair.operation}")


def _fields(fields: Mapping[str, Any]) -> Mapping[str, str | int | float | bool]:
    for name, value in fields.items():
        if not isinstance(value, str | int | float | bool):
            raise NotAnEvaluation(f"fields.{name} must be a text, a number or true or false")
    return dict(fields)


def _word(row: Any) -> Word:
    if not (isinstance(row, list) and len(row) == 4 and isinstance(row[0], str) and all(map(_is_number, row[1:]))):
        raise NotAnEvaluation("words must be [text, start_s, end_s, confidence] each")
    return Word(row[0], *row[1:])


def _timing(row: Mapping[str, Any]) -> Timing | None:
    if _field(row, "timing") is None:
        return None
    timing = mapping(row, "timing")

    lists: dict[str, Any] = {name: tuple(array(timing, name)) for name in _LISTS}
    for name, values in lists.items():
        if not all(map(_is_number, values)):
            raise NotAnEvaluation(f"timing.{name} must be numbers")
    times: dict[str, Any] = {name: _number_or_none(timing, name) for name in _TIMES}
    counts: dict[str, Any] = {name: whole(timing, name) for name in _COUNTS}
    return Timing(**times, **lists, **counts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def text(row: Any, name: str) -> str:
    return _of_kind(row, name, str, "a text")


def number(row: Any, name: str) -> float:
    value = _field(row, name)
    if not _is_number(value):
        raise NotAnEvaluation(f"{name} must be a number")
    return value  # type: ignore[no-any-return]  # an int stays one, so that a file reads back as it was


def _number_or_none(row: Any, name: str) -> float | None:
    return None if _field(row, name) is None else number(row, name)


def whole(row: Any, name: str) -> int:
    value = _field(row, name)
    if type(value) is not int or value < 0:
        raise NotAnEvaluation(f"{name} must be a whole number from 0")
    return value


def array(row: Any, name: str) -> list[Any]:
    return _of_kind(row, name, list, "a list")


def mapping(row: Any, name: str) -> Mapping[str, Any]:
    return _of_kind(row, name, dict, "an object")


def _of_kind(row: Any, name: str, kind: type[Kind], in_words: str) -> Kind:
    value = _field(row, name)
    if not isinstance(value, kind):
        raise NotAnEvaluation(f"{name} must be {in_words}")
    return value


def _field(row: Any, name: str) -> Any:
    if not isinstance(row, dict):
        raise NotAnEvaluation("must be an object")
    if name not in row:
        raise NotAnEvaluation(f"{name} is missing")
    return row[name]
