"""References as rows with named fields: JSON lines (NeMo's manifests, our own) and tables (CSV, TSV)."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_service.evaluation.reference import FieldValue, Reference
from asr_service.evaluation.references.text import file_lines, finite, numbered, seconds

Row = Mapping[str, Any]

# The names under which a field is found, the first that a row has.
ID = ("id", "utterance_id", "utt_id", "utt")
AUDIO = ("audio_filepath", "audio", "audio_path", "path", "file", "filename", "wav")
TEXT = ("text", "transcript", "transcription", "sentence", "reference")
DURATION = ("duration", "duration_s")
OFFSET = ("offset", "offset_s")
SPEAKER = ("speaker", "speaker_id", "client_id")
CORPUS = ("corpus",)
CLIPS = "clips"  # the folder of Common Voice's recordings, beside its tables
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_INTEGER = re.compile(r"0|-?[1-9]\d*")
_DECIMAL = re.compile(r"-?\d+\.\d+")


def read_jsonl(path: Path, problems: list[str]) -> list[Reference]:
    """Each line an object with a text and an audio_filepath or an id; further scalars become `fields`."""
    return _references(json_rows(path, problems), lambda name: path.parent / name, problems)


def read_table(path: Path, problems: list[str]) -> list[Reference]:
    """A first line with the names of the columns, and one row an utterance; .tsv by tabs, others by commas."""
    return _references(table_rows(path, problems), lambda name: recording_of(path, name), problems)


def json_rows(path: Path, problems: list[str]) -> Iterator[tuple[str, Row]]:
    """(place, object) of each line."""
    for place, line in numbered(path, problems):
        try:
            row = json.loads(line)
        except ValueError as error:
            problems.append(f"{place}: not JSON: {error}")
            continue
        if not isinstance(row, dict):
            problems.append(f"{place}: not a JSON object")
        elif "\\u" in line and (lone := _lone_surrogate(row)):
            problems.append(f"{place}: {lone} has half of a surrogate pair, which is no character")
        else:
            yield place, row


def _lone_surrogate(row: Row) -> str:
    """The first field with one, "" where there is none: JSON escapes can name it, but no UTF-8 file can hold it."""
    for name, value in row.items():
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return ascii(name)[1:-1]
    return ""


def table_rows(path: Path, problems: list[str], *, columns: Sequence[str] = ()) -> Iterator[tuple[str, Row]]:
    """(place, texts by column) of each row. A table without one of `columns` is a problem, and has no rows."""
    tabs = path.name.removesuffix(".gz").endswith(".tsv")
    lines = [f"{line}\n" for line in file_lines(path, problems)]
    # Tables with commas must quote. Those with tabs do or do not: Common Voice's sentences begin with quotation marks.
    quoting: Any = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"strict": True}
    cell = _unquoted if tabs else str.strip
    rows = csv.DictReader(lines, **quoting)
    try:
        there = {name.strip() for name in rows.fieldnames or ()}
        if lines and (missing := [name for name in columns if name not in there]):
            problems.append(f"{path}:1: the columns {', '.join(missing)} are missing")
            return
        for row in rows:
            if None in row or None in row.values():
                problems.append(f"{path}:{rows.line_num}: not as many columns as the first line names")
            elif any(value.strip() for value in row.values()):
                yield f"{path}:{rows.line_num}", {name.strip(): cell(value) for name, value in row.items()}
    except csv.Error as error:
        problems.append(f"{path}:{rows.line_num}: {error}")


def recording_of(table: Path, name: str) -> Path:
    """The recording that a row of `table` names: beside the table, or else in its folder `clips` if there is one.

    There lie those of Common Voice, whose early releases name them without their suffix.
    """
    beside, clips = table.parent / name, table.parent / CLIPS
    if beside.is_file() or not clips.is_dir():
        return beside
    return clips / (name if Path(name).suffix else f"{name}.mp3")


def _unquoted(cell: str) -> str:
    found = _QUOTED.fullmatch(cell.strip())
    return found[1].replace('""', '"') if found else cell.strip()


def field(row: Row, names: tuple[str, ...]) -> Any:
    """The value of the first of `names` that the row has; None where it has none of them."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def text_field(row: Row, names: tuple[str, ...]) -> str:
    """That field as text, "" where it is missing. Raises ValueError for an object or a list."""
    value = field(row, names)
    if isinstance(value, (dict, list)):
        raise ValueError(f"{names[0]} is not a text")
    return "" if value is None else str(value)


def row_id(row: Row) -> str:
    """The utterance's id; without one the audio's path, and where in it the utterance begins."""
    offset_s = seconds(field(row, OFFSET) or 0.0, OFFSET[0])
    name = text_field(row, AUDIO)
    return text_field(row, ID) or (f"{name}@{offset_s:.10g}" if offset_s else name)


def _references(
    rows: Iterator[tuple[str, Row]], recording: Callable[[str], Path], problems: list[str]
) -> list[Reference]:
    references = []
    for place, row in rows:
        try:
            references.append(_reference(row, recording))
        except ValueError as error:
            problems.append(f"{place}: {error}")
    return references


def _reference(row: Row, recording: Callable[[str], Path]) -> Reference:
    if field(row, TEXT) is None:
        raise ValueError("no text")
    audio = text_field(row, AUDIO)
    utterance_id = row_id(row)
    if not utterance_id:
        raise ValueError("neither audio_filepath nor id")
    duration = field(row, DURATION)
    named = {name for names in (ID, AUDIO, TEXT, DURATION, OFFSET, SPEAKER, CORPUS) for name in names}
    fields: dict[str, FieldValue] = {}
    for name, value in row.items():
        if name not in named and isinstance(value, (str, int, float, bool)):
            fields[name] = finite(_number_or_text(value) if isinstance(value, str) else value, name)
    return Reference(
        utterance_id,
        text_field(row, TEXT),
        recording(audio) if audio else None,
        offset_s=seconds(field(row, OFFSET) or 0.0, OFFSET[0]),
        duration_s=None if duration in (None, "") else seconds(duration, DURATION[0]),
        speaker=text_field(row, SPEAKER),
        corpus=text_field(row, CORPUS),
        fields=fields,
    )


def _number_or_text(value: str) -> FieldValue:
    # "007" is a name, 7 a number.
    if _INTEGER.fullmatch(value):
        return int(value)
    return float(value) if _DECIMAL.fullmatch(value) else value
