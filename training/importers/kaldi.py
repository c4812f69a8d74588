"""Kaldi data directories: wav.scp, text, utt2spk, and segments where the recordings are long."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.importers.record import CorpusError, Record, table_lines

_ARCHIVE = re.compile(r"\.ark:\d+$")


@dataclass(frozen=True, slots=True)
class _Span:
    recording: str
    offset_s: float = 0.0
    duration_s: float | None = None


def read_kaldi(folder: Path, *, corpus: str = "", audio_root: Path = Path()) -> Iterator[Record]:
    """All utterances of a data directory, in the order of `segments` or else of `wav.scp`.

    Paths in wav.scp are relative to `audio_root`, by default the working directory, as Kaldi has them. An utterance
    that `text` lacks has an empty text. Raises CorpusError for pipes and archives in wav.scp, for a name that another
    file lacks or has twice, and for a line that is malformed.
    """
    recordings = _recordings(folder / "wav.scp", audio_root)
    texts = _unique(folder / "text")
    speakers = _unique(folder / "utt2spk")
    segmented = (folder / "segments").exists()
    spans = _segments(folder / "segments") if segmented else {name: _Span(name) for name in recordings}
    if strangers := texts.keys() - spans.keys():
        source = "segments" if segmented else "wav.scp"
        raise CorpusError(f"{folder / 'text'}: {min(strangers)} and {len(strangers) - 1} more are not in {source}")
    for utterance_id, span in spans.items():
        if span.recording not in recordings:
            raise CorpusError(f"{folder / 'segments'}: the recording {span.recording} is not in wav.scp")
        if utterance_id not in speakers:
            raise CorpusError(f"{folder / 'utt2spk'}: {utterance_id} has no speaker")
        yield Record(
            utterance_id,
            recordings[span.recording],
            texts.get(utterance_id, ""),
            speakers[utterance_id],
            corpus or folder.resolve().name,
            offset_s=span.offset_s,
            duration_s=span.duration_s,
            segment=segmented,
        )


def _unique(path: Path) -> dict[str, str]:
    table: dict[str, str] = {}
    for number, key, value in table_lines(path):
        if key in table:
            raise CorpusError(f"{path}:{number}: {key} stands there twice")
        table[key] = value
    return table


def _recordings(path: Path, audio_root: Path) -> dict[str, Path]:
    table = _unique(path)
    for name, value in table.items():
        if value.startswith("|") or value.endswith("|"):
            raise CorpusError(
                f"{path}: {name} is the output of a command ({value!r}), and no command is run here: write the audio "
                "to files first, for example with Kaldi's wav-copy"
            )
        if _ARCHIVE.search(value) or not value:
            raise CorpusError(f"{path}: {name} is {value!r}, not an audio file")
    return {name: audio_root / value for name, value in table.items()}


def _segments(path: Path) -> dict[str, _Span]:
    spans = {}
    for utterance_id, value in _unique(path).items():
        try:
            recording, begin, end = value.split()
            offset_s, end_s = float(begin), float(end)
        except ValueError as error:
            raise CorpusError(f"{path}: {utterance_id}: expected a recording, its begin and end in seconds") from error
        # Kaldi writes -1 for the recording's end.
        if not 0.0 <= offset_s < float("inf") or not (end_s == -1.0 or offset_s < end_s < float("inf")):
            raise CorpusError(f"{path}: {utterance_id}: the segment {begin} to {end} s is empty or runs backwards")
        spans[utterance_id] = _Span(recording, offset_s, None if end_s == -1.0 else end_s - offset_s)
    return spans
