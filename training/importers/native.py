"""Manifests in NeMo's fields, our own among them: JSON lines with audio_filepath, duration, text, speaker, corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asr_service.evaluation.references.rows import ID, Row, json_rows, text_field
from asr_service.evaluation.references.text import seconds
from training.importers.record import Record, accepted, further


def read_native(manifest: Path, *, corpus: str = "") -> Iterator[Record]:
    """The utterances of a manifest; audio paths are relative to its folder, a field `offset` (s) makes a segment.

    A line without an id is named by its path and offset; `corpus` stands in where a line names none. Raises CorpusError
    with all that is wrong: a file that cannot be read, lines that are no JSON object with a text audio_filepath, or
    whose times are no numbers of seconds.
    """
    problems: list[str] = []
    records = []
    for place, row in json_rows(manifest, problems):
        try:
            records.append(_record(row, manifest.parent, corpus))
        except ValueError as error:
            problems.append(f"{place}: {error}")
    yield from accepted(records, problems, manifest)


def _record(row: Row, folder: Path, corpus: str) -> Record:
    """Raises ValueError, which names the field."""
    texts = {name: row.get(name) or "" for name in ("audio_filepath", "text")}
    if wrong := [name for name, value in texts.items() if not isinstance(value, str)]:
        raise ValueError(f"{', '.join(wrong)} is not a text")
    if not (name := texts["audio_filepath"]):
        raise ValueError("no audio_filepath")
    segment = row.get("offset") is not None
    offset_s = seconds(row["offset"], "offset") if segment else 0.0
    own_id = text_field(row, ID)
    return Record(
        own_id or (f"{name}@{offset_s:.10g}" if segment else name),
        folder / name,
        texts["text"],
        text_field(row, ("speaker",)),
        text_field(row, ("corpus",)) or corpus,
        offset_s=offset_s,
        duration_s=None if row.get("duration") is None else seconds(row["duration"], "duration"),
        segment=segment,
        extra=further(row),
        named=bool(own_id),
    )
