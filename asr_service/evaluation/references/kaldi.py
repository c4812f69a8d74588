"""Kaldi's data directories: `text`, with wav.scp, segments, utt2spk and utt2dur where they are."""

from __future__ import annotations

import re
from pathlib import Path

from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references.text import numbered, seconds

_ARCHIVE = re.compile(r"\.ark:\d+$")


def read_kaldi(
    path: Path, problems: list[str], *, audio_root: Path | None = None, untranscribed: bool = False
) -> list[Reference]:
    """The utterances of `text` in a directory, in its order; the corpus is the directory's name.

    Relative paths in wav.scp are relative to `audio_root`, by default the directory. Commands (pipes) and archives in
    it are problems, as are utterances with a text and no audio, or with audio and no text; but if `untranscribed`, the
    latter have an empty text, and the order is the audio's.
    """
    folder = path if path.is_dir() else path.parent
    texts = read_pairs(folder / "text", problems)
    recordings = _recordings(folder, folder if audio_root is None else audio_root, problems)
    segments = _optional(folder / "segments", problems)
    speakers = _optional(folder / "utt2spk", problems)
    durations = _optional(folder / "utt2dur", problems)
    audible = segments if segments is not None else recordings
    if untranscribed:
        texts = {name: texts.get(name, "") for name in audible or ()} | texts
    elif audible is not None:
        source = "segments" if segments is not None else "wav.scp"
        problems += [f"{folder / source}: {name} is not in text" for name in audible if name not in texts]
    if speakers is not None:
        problems += [f"{folder / 'utt2spk'}: {name} has no speaker" for name in texts if name not in speakers]
    references = []
    for name, text in texts.items():
        try:
            audio, offset_s, duration_s = _place(name, recordings, segments)
            if duration_s is None and durations and name in durations:
                duration_s = seconds(durations[name], "utt2dur")
        except ValueError as error:
            problems.append(f"{folder}: {name}: {error}")
            continue
        speaker = (speakers or {}).get(name, "")
        references.append(Reference(name, text, audio, offset_s, duration_s, speaker, folder.resolve().name))
    return references


def read_pairs(path: Path, problems: list[str]) -> dict[str, str]:
    """First word and rest of each line. A name that stands there twice is a problem."""
    table: dict[str, str] = {}
    for place, line in numbered(path, problems):
        name, *rest = line.split(maxsplit=1)
        if name in table:
            problems.append(f"{place}: {name} stands there twice")
        table[name] = rest[0] if rest else ""
    return table


def _optional(path: Path, problems: list[str]) -> dict[str, str] | None:
    return read_pairs(path, problems) if path.exists() else None


def _recordings(folder: Path, audio_root: Path, problems: list[str]) -> dict[str, Path] | None:
    recordings = _optional(folder / "wav.scp", problems)
    for name, value in (recordings or {}).items():
        if value.startswith("|") or value.endswith("|"):
            problems.append(
                f"{folder / 'wav.scp'}: {name} is the output of a command, and no command is run here: write the audio "
                "to files first, for example with Kaldi's wav-copy"
            )
        elif _ARCHIVE.search(value) or not value:
            problems.append(f"{folder / 'wav.scp'}: {name} is {value!r}, not an audio file")
    return None if recordings is None else {name: audio_root / value for name, value in recordings.items()}


def _place(
    name: str, recordings: dict[str, Path] | None, segments: dict[str, str] | None
) -> tuple[Path | None, float, float | None]:
    """Recording, offset and duration (s) of an utterance. Raises ValueError where a file lacks it or is malformed."""
    recording, offset_s, duration_s = name, 0.0, None
    if segments is not None:
        if name not in segments:
            raise ValueError("it has a text, but segments lacks it")
        parts = segments[name].split()
        if len(parts) != 3:
            raise ValueError("segments needs a recording, its begin and its end in seconds")
        recording, begin, end = parts
        offset_s = seconds(begin, "its begin in segments")
        # Kaldi writes -1 for the recording's end.
        if end not in {"-1", "-1.0"}:
            duration_s = seconds(end, "its end in segments") - offset_s
            if duration_s <= 0:
                raise ValueError(f"its segment {begin} to {end} s is empty or runs backwards")
    if recordings is None:
        return None, offset_s, duration_s
    if recording not in recordings:
        raise ValueError(f"the recording {recording} is not in wav.scp")
    return recordings[recording], offset_s, duration_s
