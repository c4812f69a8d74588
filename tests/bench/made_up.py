"""Clips of tones, and calls whose answers are written by hand."""

from __future__ import annotations

import numpy as np

from asr_service.bench.generator import CallRecord
from asr_service.bench.playlist import Call, Clip, Played
from asr_service.evaluation.forced_alignment import SpokenWord
from asr_service.evaluation.reference import Reference
from asr_service.generated.asr.v1 import speech_pb2 as pb
from tests.fake_engine import DIGITS, linear16, say


def tone_clip(name: str, *parts: int | float) -> Clip:
    """Digits (int) and pauses in seconds (float); each word with the time at which its tone sounds."""
    words, now_s = [], 0.0
    for part in parts:
        length_s = 0.32 if isinstance(part, int) else part
        if isinstance(part, int):
            words.append(SpokenWord(DIGITS[part], now_s, now_s + length_s))
        now_s += length_s
    return Clip(Reference(name, " ".join(word.text for word in words)), linear16(say(*parts)), tuple(words))


def text_clip(name: str, *words: tuple[str, float, float], duration_s: float = 2.0) -> Clip:
    """(text, start, end) of each word."""
    pcm = np.zeros(round(16_000 * duration_s), dtype="<i2").tobytes()
    return Clip(Reference(name, " ".join(text for text, _, _ in words)), pcm, tuple(SpokenWord(*w) for w in words))


def call_of(*clips: Clip, pause_s: float = 1.0) -> Call:
    row: list[Played] = []
    for clip in clips:
        row.append(Played(clip, row[-1].end_s + pause_s if row else 0.0))
    return Call(tuple(row), pause_s)


def interim(text: str, utterance: int = 0) -> pb.StreamingRecognizeResponse:
    alternatives = [pb.SpeechRecognitionAlternative(transcript=text)]
    result = pb.StreamingRecognitionResult(utterance_index=utterance, alternatives=alternatives)
    return pb.StreamingRecognizeResponse(results=[result])


def final(
    *words: tuple[str, float, float], utterance: int = 0, endpoint_s: float | None = None
) -> pb.StreamingRecognizeResponse:
    alternative = pb.SpeechRecognitionAlternative(transcript=" ".join(text for text, _, _ in words))
    for text, start_s, end_s in words:
        word = alternative.words.add(word=text)
        word.start_time.FromMilliseconds(round(1000 * start_s))
        word.end_time.FromMilliseconds(round(1000 * end_s))
    result = pb.StreamingRecognitionResult(utterance_index=utterance, is_final=True, alternatives=[alternative])
    result.result_end_time.FromMilliseconds(round(1000 * (words[-1][2] if endpoint_s is None else endpoint_s)))
    return pb.StreamingRecognizeResponse(results=[result])


def record(call: Call, *answers: tuple[float, pb.StreamingRecognizeResponse], begun_s: float = 0.0, stream: int = 0):
    made = CallRecord(stream, call, begun_s, sent_s=call.duration_s)
    for now_s, answer in answers:
        made.note(answer, now_s)
    return made
