"""lhotse CutSets: cuts of recordings that lie in files. Needs the optional package `lhotse`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.importers.record import CorpusError, Record

# lhotse rounds times to a thousandth of a millisecond; a cut this close to the recording's ends is all of it.
_TOLERANCE_S = 1e-3


def read_lhotse(path: Path, *, corpus: str = "", audio_root: Path = Path()) -> Iterator[Record]:
    """The supervisions of a CutSet's cuts, each an utterance; a cut without one has an empty text.

    Relative paths are relative to `audio_root`, by default the working directory, as lhotse has them. Raises
    CorpusError without lhotse, for a file that it cannot read, and for cuts that are no plain stretch of one channel of
    a file: mixed, padded or multi-channel ones, ones with transforms (speed, volume), audio from commands or URLs.
    """
    try:
        from lhotse import CutSet
    except ModuleNotFoundError as error:
        raise CorpusError("CutSets need the package lhotse: pip install 'asr-service[lhotse]'") from error
    try:
        cuts = CutSet.from_file(path)
        for cut in cuts:
            yield from _records(cut, path, corpus or path.name.split(".")[0], audio_root)
    except CorpusError:
        raise
    except Exception as error:  # lhotse raises whatever its readers do
        raise CorpusError(f"{path}: not a CutSet: {error}") from error


def _records(cut: Any, path: Path, corpus: str, audio_root: Path) -> Iterator[Record]:
    audio = audio_root / _audio_file(cut, path)
    if len(cut.supervisions) == 1 and _covers(cut.supervisions[0], cut):
        parts = [cut]
    elif cut.supervisions:
        parts = list(cut.trim_to_supervisions(keep_overlapping=False))
    else:
        parts = [cut]
    for part in parts:
        supervision = part.supervisions[0] if part.supervisions else None
        whole = part.start < _TOLERANCE_S and abs(part.duration - part.recording.duration) < _TOLERANCE_S
        yield Record(
            supervision.id if supervision else part.id,
            audio,
            (supervision.text or "") if supervision else "",
            (supervision.speaker or "") if supervision else "",
            corpus,
            offset_s=0.0 if whole else part.start,
            duration_s=part.duration,
            segment=not whole,
        )


def _covers(supervision: Any, cut: Any) -> bool:
    # Its start counts from the cut's.
    return bool(supervision.start <= _TOLERANCE_S and supervision.end >= cut.duration - _TOLERANCE_S)


def _audio_file(cut: Any, path: Path) -> Path:
    """The file of a plain cut. Raises CorpusError for any other kind."""
    kind = type(cut).__name__
    if kind != "MonoCut":
        raise CorpusError(f"{path}: the cut {cut.id} is a {kind}, only MonoCuts are plain stretches of a recording")
    if not cut.has_recording:
        raise CorpusError(f"{path}: the cut {cut.id} has no recording")
    recording = cut.recording
    if recording.transforms:
        raise CorpusError(f"{path}: the cut {cut.id} has transforms: save its audio first (CutSet.save_audios)")
    if recording.num_channels != 1:
        raise CorpusError(
            f"{path}: the recording {recording.id} has {recording.num_channels} channels: split them first"
        )
    (source,) = recording.sources
    if source.type != "file":
        raise CorpusError(f"{path}: the audio of {recording.id} is a {source.type}, not a file")
    return Path(source.source)
