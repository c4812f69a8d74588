"""Transcripts as text, JSON, SubRip and WebVTT."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from asr_service.types import RecognitionResult, Word

FORMATS = ("text", "json", "srt", "vtt")

# A subtitle: at most two lines that fit a screen, not longer than can be read in comfort, none across a pause.
MAX_CUE_CHARACTERS = 84
MAX_CUE_S = 7.0
MAX_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """The finals of one recording; with `error`, those of what came before it."""

    name: str
    mode: str
    results: tuple[RecognitionResult, ...]
    error: str = ""

    @property
    def text(self) -> str:
        return " ".join(result.alternatives[0].text for result in self.results)

    @property
    def words(self) -> list[Word]:
        return [word for result in self.results for word in result.alternatives[0].words]


def render(transcripts: Iterable[Transcript], form: str) -> Iterator[str]:
    """Lines of output, without line ends: text and JSON one for each transcript, as soon as it is there."""
    for transcript in transcripts:
        if form == "text":
            yield transcript.text
        elif form == "json":
            yield json.dumps(_json(transcript), ensure_ascii=False)
        else:
            yield from subtitles(transcript.words, form)


def subtitles(words: Sequence[Word], form: str) -> Iterator[str]:
    """Lines of a subtitle file, `form` "srt" or "vtt"."""
    if form == "vtt":
        yield "WEBVTT"
        yield ""
    for number, cue in enumerate(cues(words), 1):
        if form == "srt":
            yield str(number)
        mark = "," if form == "srt" else "."
        yield f"{_clock(cue[0].start_s, mark)} --> {_clock(cue[-1].end_s, mark)}"
        yield " ".join(word.text for word in cue)
        yield ""


def cues(words: Iterable[Word]) -> Iterator[list[Word]]:
    """Words that are shown together."""
    cue: list[Word] = []
    for word in words:
        if cue:
            characters = sum(len(shown.text) + 1 for shown in cue) + len(word.text)
            too_long = characters > MAX_CUE_CHARACTERS or word.end_s - cue[0].start_s > MAX_CUE_S
            if too_long or word.start_s - cue[-1].end_s > MAX_PAUSE_S:
                yield cue
                cue = []
        cue.append(word)
    if cue:
        yield cue


def _clock(seconds: float, mark: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def _json(transcript: Transcript) -> dict[str, object]:
    line: dict[str, object] = {
        "file": transcript.name,
        "mode": transcript.mode,
        "transcript": transcript.text,
        "results": [
            {
                "transcript": result.alternatives[0].text,
                "confidence": round(result.alternatives[0].confidence, 4),
                "start_s": round(result.start_s, 3),
                "end_s": round(result.end_s, 3),
                "words": [
                    {
                        "word": word.text,
                        "start_s": round(word.start_s, 3),
                        "end_s": round(word.end_s, 3),
                        "confidence": round(word.confidence, 4),
                    }
                    for word in result.alternatives[0].words
                ],
            }
            for result in transcript.results
        ],
    }
    if transcript.error:
        line["error"] = transcript.error
    return line
