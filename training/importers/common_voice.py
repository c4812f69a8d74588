"""Mozilla Common Voice: a table of validated.tsv's kind, with the folder `clips` beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asr_service.evaluation.references.rows import recording_of, table_rows
from training.importers.record import Record, accepted


def read_common_voice(table: Path, *, corpus: str = "") -> Iterator[Record]:
    """The utterances of one table (train.tsv, dev.tsv, validated.tsv …); the speaker is the client's id.

    Raises CorpusError with all that is wrong: a file that cannot be read or lacks one of the columns client_id, path
    and sentence, a row without a path, or with other columns than the first line names.
    """
    problems: list[str] = []
    records = []
    for place, row in table_rows(table, problems, columns=("client_id", "path", "sentence")):
        if not row["path"]:
            problems.append(f"{place}: no path")
            continue
        audio = recording_of(table, row["path"])
        records.append(Record(audio.stem, audio, row["sentence"], row["client_id"], corpus or "common_voice"))
    yield from accepted(records, problems, table)
