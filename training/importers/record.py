"""One utterance as a corpus describes it, before anything was checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class CorpusError(ValueError):
    """A corpus is not as its format says; the message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a corpus says of an utterance.

    Attributes:
        utterance_id: as the corpus names it.
        audio: the file.
        text: as it is written, not normalised; empty where the corpus has none.
        speaker: empty where it is not known.
        corpus: the name under which recipes choose and leave out.
        offset_s: where the utterance begins in the file.
        duration_s: how long the corpus says that it lasts; None where it says nothing, or "to the end".
        segment: whether it is a part of a longer recording.
        extra: further fields, which the manifest keeps.
    """

    utterance_id: str
    audio: Path
    text: str
    speaker: str
    corpus: str
    offset_s: float = 0.0
    duration_s: float | None = None
    segment: bool = False
    extra: Mapping[str, object] = field(default_factory=dict)


def table_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, first word, rest of the line) of a text file; empty lines are left out.

    Raises CorpusError where the file is missing or no UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: no UTF-8 at byte {error.start}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            key, *rest = line.split(maxsplit=1)
            yield number, key, " ".join(rest).strip()
