"""NIST's formats, as sclite reads them: TRN (text and utterance id), STM (segments), CTM (words with times)."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from asr_service.evaluation.reference import Reference, Unscored
from asr_service.evaluation.references.text import audio_beside, numbered, seconds
from asr_service.types import Word

COMMENT = ";;"
_TRN = re.compile(r"(.*?)\s*\(([^()\s]+)\)")
_SPEAKER = re.compile(r"[-_]")
_IGNORED = "ignore_time_segment_in_scoring"
# What sclite reads in a reference and we do not: { a / b } either of them, (a) may be missing, @ no word.
_ALTERNATIVES = re.compile(r"\{.*/.*\}|(?<!\S)\([^()\s]*\)(?!\S)|(?<!\S)@(?!\S)")
_log = logging.getLogger(__name__)


def read_trn(path: Path, problems: list[str]) -> list[Reference]:
    """`text (id)` a line; the speaker is the id up to its first - or _, the recording one of that name beside it."""
    references = []
    for utterance_id, text in trn_lines(path, problems):
        speaker, *rest = _SPEAKER.split(utterance_id, maxsplit=1)
        audio = audio_beside(path.parent, utterance_id)
        references.append(Reference(utterance_id, text, audio, speaker=speaker if rest else ""))
    return references


def trn_lines(path: Path, problems: list[str]) -> list[tuple[str, str]]:
    """(utterance id, text) of each line."""
    lines = []
    for place, line in numbered(path, problems):
        if line.startswith(COMMENT):
            continue
        if not (found := _TRN.fullmatch(line)):
            problems.append(f"{place}: no utterance id in parentheses at the end")
        elif _ALTERNATIVES.search(found[1]):
            problems.append(f"{place}: alternatives ({{ a / b }}, (a) or @) are not supported")
        else:
            lines.append((found[2], found[1]))
    return lines


def read_stm(path: Path, problems: list[str]) -> list[Reference]:
    """`recording channel speaker begin end [<labels>] text` a line, one utterance each.

    Ids are `recording-channel-begin-end`; the recording is the file of that name beside the STM. Labels become the
    field `labels`. Segments that NIST marks as not to be scored are left out, and their number is logged; the others
    know where they are (`unscored`).
    """
    references = []
    ignored: list[Unscored] = []
    for place, line in numbered(path, problems):
        if line.startswith(COMMENT):
            continue
        parts = line.split(maxsplit=5)
        if len(parts) < 5:
            problems.append(f"{place}: needs recording, channel, speaker, begin and end")
            continue
        recording, channel, speaker, begin, end, text = (*parts, "")[:6]
        labels, text = _labels(text)
        try:
            offset_s = seconds(begin, "begin")
            duration_s = seconds(end, "end") - offset_s
            if duration_s <= 0:
                raise ValueError(f"the segment {begin} to {end} s is empty or runs backwards")
            if text.lower() == _IGNORED:
                ignored.append(Unscored(recording, channel, offset_s, offset_s + duration_s))
                continue
            if _ALTERNATIVES.search(text):
                raise ValueError("alternatives ({ a / b }, (a) or @) are not supported")
        except ValueError as error:
            problems.append(f"{place}: {error}")
            continue
        fields = {"recording": recording, "channel": channel, **({"labels": labels} if labels else {})}
        audio = audio_beside(path.parent, recording) or path.parent / f"{recording}.wav"
        name = f"{recording}-{channel}-{begin}-{end}"
        references.append(Reference(name, text, audio, offset_s, duration_s, speaker, fields=fields))
    if ignored:
        _log.warning("%s: %d segments are marked %s and left out", path, len(ignored), _IGNORED)
    unscored = tuple(ignored)
    return [replace(one, unscored=unscored) for one in references]


def _labels(text: str) -> tuple[str, str]:
    if text.startswith("<") and ">" in text:
        labels, _, text = text[1:].partition(">")
        return labels, text.strip()
    return "", text


def read_ctm(path: Path, problems: list[str]) -> list[Reference]:
    """All words of a recording and channel are one reference, in the order of their times; see ctm_words."""
    references = []
    for (recording, channel), words in ctm_words(path, problems).items():
        audio = audio_beside(path.parent, recording) or path.parent / f"{recording}.wav"
        text = " ".join(word.text for word, _ in words)
        fields = {"recording": recording, "channel": channel}
        references.append(Reference(ctm_id(recording, channel), text, audio, fields=fields))
    return references


def ctm_id(recording: str, channel: str) -> str:
    """The utterance id of a whole recording: its name, with the channel unless that is the first (1 or A)."""
    return recording if channel in {"1", "A", "a"} else f"{recording}-{channel}"


def ctm_words(path: Path, problems: list[str]) -> dict[tuple[str, str], list[tuple[Word, bool]]]:
    """`recording channel begin duration word [confidence …]` a line: words by (recording, channel), in time order.

    The second of each pair says whether the line had a confidence.
    """
    words: dict[tuple[str, str], list[tuple[Word, bool]]] = defaultdict(list)
    for place, line in numbered(path, problems):
        if line.startswith(COMMENT):
            continue
        parts = line.split()
        if len(parts) < 5:
            problems.append(f"{place}: needs recording, channel, begin, duration and word")
            continue
        recording, channel, begin, duration, text = parts[:5]
        if _ALTERNATIVES.fullmatch(text) or text.startswith("<ALT"):
            problems.append(f"{place}: alternatives ({text}) are not supported")
            continue
        try:
            start_s = seconds(begin, "begin")
            end_s = start_s + seconds(duration, "duration")
            known = len(parts) > 5 and parts[5] != "NA"
            confidence = confidence_of(parts[5]) if known else 0.0
        except ValueError as error:
            problems.append(f"{place}: {error}")
            continue
        words[recording, channel].append((Word(text, start_s, end_s, confidence), known))
    return {key: sorted(found, key=lambda entry: entry[0].start_s) for key, found in words.items()}


def confidence_of(value: object) -> float:
    """Raises ValueError unless it is a number from 0 to 1."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"confidence is {value!r}, not a number from 0 to 1")
    return number
