"""LibriSpeech trees: SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt with the recordings beside it."""

from __future__ import annotations

from pathlib import Path

from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references.kaldi import read_pairs
from asr_service.evaluation.references.text import AUDIO_SUFFIXES, audio_beside

TRANSCRIPTS = "*.trans.txt"


def read_librispeech(folder: Path, problems: list[str]) -> list[Reference]:
    """All utterances below `folder`, by name. The speaker begins the id; the corpus is the subset's folder.

    A recording beside a transcript that does not mention it is a problem.
    """
    references = []
    for transcript in sorted(folder.rglob(TRANSCRIPTS)):
        chapter = transcript.resolve().parent
        texts = read_pairs(transcript, problems)
        for name, text in texts.items():
            audio = audio_beside(transcript.parent, name) or transcript.parent / f"{name}.flac"
            references.append(
                Reference(name, text, audio, speaker=name.partition("-")[0], corpus=chapter.parent.parent.name)
            )
        recordings = sorted(path for path in transcript.parent.iterdir() if path.suffix in AUDIO_SUFFIXES)
        problems += [f"{path}: not in {transcript.name}" for path in recordings if path.stem not in texts]
    return references
