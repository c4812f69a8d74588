"""LibriSpeech trees: SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt with its recordings beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asr_service.evaluation.references import librispeech
from training.importers.record import Record, accepted, record_of


def read_librispeech(folder: Path, *, corpus: str = "") -> Iterator[Record]:
    """All utterances below `folder`, by name; the corpus is the subset's folder unless `corpus` names it.

    A recording that no transcript mentions comes with an empty text, a transcript without its recording with the path
    that a FLAC file would have. Raises CorpusError with all that is wrong: no transcripts, an id twice in one.
    """
    problems: list[str] = []
    references = librispeech.read_librispeech(folder, problems, untranscribed=True)
    yield from accepted([record_of(reference, corpus) for reference in references], problems, folder)
