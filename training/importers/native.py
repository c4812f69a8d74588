"""Manifests in NeMo's fields, our own among them: JSON lines with audio_filepath, duration, text, speaker, corpus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from training.importers.record import CorpusError, Record

_FIELDS = ("audio_filepath", "duration", "text", "speaker", "corpus", "offset")


def read_native(manifest: Path, *, corpus: str = "") -> Iterator[Record]:
    """The utterances of a manifest; audio paths are relative to its folder, a field `offset` (s) makes a segment.

    `corpus` stands in where a line names none. Raises CorpusError where the file is missing, and for a line that is no
    JSON object with a text audio_filepath, or whose times are no numbers of seconds.
    """
    try:
        with manifest.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _record(line, f"{manifest}:{number}", manifest.parent, corpus)
    except OSError as error:
        raise CorpusError(f"{manifest}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{manifest}: no UTF-8 at byte {error.start}") from error


def _record(line: str, place: str, folder: Path, corpus: str) -> Record:
    try:
        row = json.loads(line)
        name = row["audio_filepath"]
        offset_s = float(row.get("offset") or 0.0)
        duration_s = float(row["duration"]) if row.get("duration") is not None else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{place}: expected an object with audio_filepath, duration in s: {error!r}") from error
    texts = {key: row.get(key) or "" for key in ("text", "speaker", "corpus")}
    wrong = [key for key, value in (("audio_filepath", name), *texts.items()) if not isinstance(value, str)]
    if wrong or not 0.0 <= offset_s < float("inf") or not (duration_s is None or 0.0 <= duration_s < float("inf")):
        raise CorpusError(f"{place}: {', '.join(wrong) or 'offset or duration'} is not what it should be")
    return Record(
        name if "offset" not in row else f"{name}@{offset_s:g}",
        folder / name,
        texts["text"],
        texts["speaker"],
        texts["corpus"] or corpus,
        offset_s=offset_s,
        duration_s=duration_s,
        segment="offset" in row,
        extra={key: value for key, value in row.items() if key not in _FIELDS},
    )
