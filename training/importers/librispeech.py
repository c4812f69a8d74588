"""LibriSpeech trees: SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt with its recordings beside it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from training.importers.record import CorpusError, Record, table_lines

_TRANSCRIPT = ".trans.txt"
AUDIO_SUFFIXES = (".flac", ".wav", ".opus", ".ogg", ".mp3")


def read_librispeech(folder: Path, *, corpus: str = "") -> Iterator[Record]:
    """All utterances below `folder`, by name; the corpus is the subset's folder unless `corpus` names it.

    A recording that no transcript mentions comes with an empty text, a transcript without its recording with the path
    that a FLAC file would have. Raises CorpusError where there are no transcripts.
    """
    files = sorted(path for path in folder.rglob("*") if path.name.endswith((_TRANSCRIPT, *AUDIO_SUFFIXES)))
    if not any(path.name.endswith(_TRANSCRIPT) for path in files):
        raise CorpusError(f"{folder}: no *{_TRANSCRIPT} below it, so it is no LibriSpeech tree")
    for chapter, group in itertools.groupby(files, key=lambda path: path.parent):
        members = list(group)
        recordings = {path.stem: path for path in members if path.suffix in AUDIO_SUFFIXES}
        name = corpus or chapter.parent.parent.name
        speaker = chapter.parent.name
        for path in members:
            if path.name.endswith(_TRANSCRIPT):
                for _, utterance_id, text in table_lines(path):
                    audio = recordings.pop(utterance_id, chapter / f"{utterance_id}.flac")
                    yield Record(utterance_id, audio, text, speaker, name)
        for utterance_id, audio in recordings.items():
            yield Record(utterance_id, audio, "", speaker, name)
