"""Subtitles as references of long recordings: SubRip (.srt) and WebVTT (.vtt)."""

from __future__ import annotations

import html
import re
from pathlib import Path

from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references.text import audio_beside, file_lines, unpacked

_ARROW = "-->"
_TIME = re.compile(r"(?:(\d+):)?([0-5]\d):([0-5]\d)[.,](\d{3})")
_TIMES = re.compile(rf"{_TIME.pattern}\s*{_ARROW}\s*{_TIME.pattern}(?:\s.*)?")
_MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
_NOT_SPOKEN = frozenset({"NOTE", "STYLE", "REGION", "WEBVTT"})  # how a block of WebVTT begins


def read_subtitles(path: Path, problems: list[str]) -> list[Reference]:
    """One reference: the text of all cues in their order, without markup, of the recording of that name beside it.

    Cues that overlap in full repeat a text for display; they are scored as they stand. A cue that ends before it
    begins, or a time that is none, is a problem, and so are times in the middle of a cue: an empty line is missing.
    """
    named = unpacked(path)
    spoken: list[str] = []
    cues = 0
    lines = [line.strip() for line in file_lines(path, problems)]
    for begin, block in _blocks(lines):
        times = next((index for index, line in enumerate(block) if _ARROW in line), None)
        if times is None:
            if named.suffix.lower() != ".vtt" or block[0].split()[0] not in _NOT_SPOKEN:
                problems.append(f"{path}:{begin}: a cue without its times")
            continue
        cues += 1
        start, _, end = block[times].partition(_ARROW)
        try:
            if _seconds(start) > _seconds(end):
                raise ValueError("the cue ends before it begins")
        except ValueError as error:
            problems.append(f"{path}:{begin + times}: {error}")
        problems += [
            f"{path}:{begin + index}: times in the middle of a cue, where an empty line is missing before it"
            for index, line in enumerate(block)
            if index > times and _TIMES.fullmatch(line)
        ]
        spoken += [html.unescape(_MARKUP.sub("", line)) for line in block[times + 1 :]]
    if not cues:
        problems.append(f"{path}: no cue in it")
        return []
    audio = audio_beside(path.parent, named.stem) or named.with_suffix(".wav")
    return [Reference(named.stem, " ".join(" ".join(spoken).split()), audio, fields={"cues": cues})]


def _blocks(lines: list[str]) -> list[tuple[int, list[str]]]:
    """(number of the first line, lines) of each stretch without empty lines."""
    blocks: list[tuple[int, list[str]]] = []
    previous = ""
    for number, line in enumerate(lines, 1):
        if line and previous:
            blocks[-1][1].append(line)
        elif line:
            blocks.append((number, [line]))
        previous = line
    return blocks


def _seconds(text: str) -> float:
    # After the end WebVTT may place the cue: "position:10%".
    found = _TIME.fullmatch(text.split(maxsplit=1)[0]) if text.split() else None
    if not found:
        raise ValueError(f"{text.strip()!r} is no time, which looks like 00:01:02.500")
    hours, minutes, whole, thousandths = (int(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + whole + thousandths / 1000
