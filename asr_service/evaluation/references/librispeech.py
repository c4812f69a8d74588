"""LibriSpeech trees: SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt with the recordings beside it."""

from __future__ import annotations

import itertools
from pathlib import Path

from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references.kaldi import read_pairs
from asr_service.evaluation.references.text import AUDIO_SUFFIXES

TRANSCRIPTS = "*.trans.txt"
_TRANSCRIPT = TRANSCRIPTS.removeprefix("*")


def read_librispeech(folder: Path, problems: list[str], *, untranscribed: bool = False) -> list[Reference]:
    """All utterances below `folder`, by name; speaker and corpus are the folders of the speaker and of the subset.

    A transcript without its recording has the path that a FLAC file would have. A recording that no transcript beside
    it mentions is a problem; but if `untranscribed`, it has an empty text.
    """
    references = []
    found = (path for path in folder.rglob("*") if path.name.endswith((_TRANSCRIPT, *AUDIO_SUFFIXES)))
    files = sorted(found, key=lambda path: (path.parent, path.name))
    if not any(path.name.endswith(_TRANSCRIPT) for path in files):
        problems.append(f"{folder}: no {TRANSCRIPTS} below it, so it is no LibriSpeech tree")
        return []
    for chapter, group in itertools.groupby(files, key=lambda path: path.parent):
        members = list(group)
        transcripts = [path for path in members if path.name.endswith(_TRANSCRIPT)]
        texts: dict[str, str] = {}
        for transcript in transcripts:
            texts |= read_pairs(transcript, problems)
        recordings = {path.stem: path for path in members if path not in transcripts}
        if untranscribed:
            texts |= {name: "" for name in recordings if name not in texts}
        else:
            source = " or ".join(path.name for path in transcripts) or "a transcript beside it"
            problems += [f"{path}: not in {source}" for name, path in recordings.items() if name not in texts]
        *_, subset, speaker, _ = chapter.resolve().parts
        references += [
            Reference(name, text, recordings.get(name, chapter / f"{name}.flac"), speaker=speaker, corpus=subset)
            for name, text in texts.items()
        ]
    return references
