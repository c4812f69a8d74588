"""One utterance as a corpus describes it, before anything was checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asr_service.evaluation.reference import Reference

# What the manifest says itself of an utterance.
MANIFEST_FIELDS = frozenset(("id", "audio_filepath", "duration", "text", "speaker", "corpus", "offset"))


class CorpusError(ValueError):
    """A corpus is not as its format says; each line of the message is a problem, with its file and line."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a corpus says of an utterance.

    Attributes:
        utterance_id: as the corpus names it, or else by its audio.
        audio: the file.
        text: as it is written, not normalised; empty where the corpus has none.
        speaker: empty where it is not known.
        corpus: the name under which recipes choose and leave out.
        offset_s: where the utterance begins in the file.
        duration_s: how long the corpus says that it lasts; None where it says nothing, or "to the end".
        segment: whether it is a part of a longer recording.
        extra: further fields, which the manifest keeps; none is one of MANIFEST_FIELDS.
        named: whether the corpus has the id; the manifest keeps it then.
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
    named: bool = False


def accepted(records: Sequence[Record], problems: Sequence[str], source: Path) -> Sequence[Record]:
    """`records` as they are. Raises CorpusError with all `problems` of their source, or where there is no record."""
    if problems or not records:
        raise CorpusError("\n".join(problems) or f"{source}: no utterance")
    return records


def further(fields: Mapping[str, object]) -> dict[str, object]:
    """Those of the fields that may be a record's `extra`."""
    return {name: value for name, value in fields.items() if name not in MANIFEST_FIELDS}


def record_of(reference: Reference, corpus: str, *, segment: bool = False) -> Record:
    """An utterance as a test set has it, for training; it is of `corpus`, or else of the one that it names itself."""
    assert reference.audio_path is not None  # no format that is imported has texts alone
    return Record(
        reference.utterance_id,
        reference.audio_path,
        reference.text,
        reference.speaker,
        corpus or reference.corpus,
        offset_s=reference.offset_s,
        duration_s=reference.duration_s,
        segment=segment,
        extra=further(reference.fields),
        named=True,
    )
