"""Transcripts as text, JSON, SubRip and WebVTT."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from asr_service.commands.subtitles import subtitles
from asr_service.types import RecognitionResult, Word

FORMATS = ("text", "json", "srt", "vtt")


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
