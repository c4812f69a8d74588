"""Mozilla Common Voice: a table of validated.tsv's kind, with the folder `clips` beside it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from training.importers.record import CorpusError, Record

CLIPS = "clips"


def read_common_voice(table: Path, *, corpus: str = "") -> Iterator[Record]:
    """The utterances of one table (train.tsv, dev.tsv, validated.tsv …); the speaker is the client's id.

    Raises CorpusError where the file is missing, has no columns client_id, path and sentence, or a row is short.
    """
    try:
        with table.open(encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            missing = {"client_id", "path", "sentence"} - set(rows.fieldnames or ())
            if missing:
                raise CorpusError(f"{table}:1: the columns {', '.join(sorted(missing))} are missing")
            for row in rows:
                if not row["path"] or row["sentence"] is None:
                    raise CorpusError(f"{table}:{rows.line_num}: no path or no sentence")
                # Early releases name clips without the suffix.
                clip = row["path"] if Path(row["path"]).suffix else f"{row['path']}.mp3"
                audio = table.parent / CLIPS / clip
                yield Record(Path(clip).stem, audio, row["sentence"], row["client_id"], corpus or "common_voice")
    except OSError as error:
        raise CorpusError(f"{table}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{table}: {error}") from error
