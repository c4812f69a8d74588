"""Kaldi data directories: wav.scp, text, utt2spk, and segments where the recordings are long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asr_service.evaluation.references import kaldi
from training.importers.record import CorpusError, Record, accepted, record_of


def read_kaldi(folder: Path, *, corpus: str = "", audio_root: Path = Path()) -> Iterator[Record]:
    """All utterances of a data directory, in the order of `segments` or else of `wav.scp`.

    Paths in wav.scp are relative to `audio_root`, by default the working directory, as Kaldi has them. An utterance
    that `text` lacks has an empty text. Raises CorpusError with all that is wrong: pipes and archives in wav.scp, a
    name that another file lacks or has twice, a line that is malformed.
    """
    # Texts are scored without them; training needs both.
    needed = (folder / name for name in ("wav.scp", "utt2spk"))
    problems = [f"{path}: No such file or directory" for path in needed if not path.is_file()]
    if problems:
        raise CorpusError("\n".join(problems))
    references = kaldi.read_kaldi(folder, problems, audio_root=audio_root, untranscribed=True)
    segmented = (folder / "segments").exists()
    yield from accepted([record_of(row, corpus, segment=segmented) for row in references], problems, folder)
