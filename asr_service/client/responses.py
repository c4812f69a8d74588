"""Messages of the server as our own types."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.types import Hypothesis, RecognitionResult, SpeechEvent, SpeechEventKind, Word


def result_of(result: pb.StreamingRecognitionResult) -> RecognitionResult:
    """A result as our own type; words only where the message has them, as in finals with word times."""
    alternatives = tuple(
        Hypothesis(tuple(_word(word) for word in alternative.words), 0.0, alternative.confidence)
        for alternative in result.alternatives
    )
    return RecognitionResult(
        alternatives=alternatives,
        is_final=result.is_final,
        stability=result.stability,
        start_s=_seconds(result.result_start_time),
        end_s=_seconds(result.result_end_time),
        utterance_index=result.utterance_index,
    )


def event_of(event: pb.SpeechEvent) -> SpeechEvent:
    """An event as our own type."""
    return SpeechEvent(SpeechEventKind(pb.SpeechEvent.Type.Name(event.type).lower()), _seconds(event.time))


def _word(word: pb.Word) -> Word:
    return Word(word.word, _seconds(word.start_time), _seconds(word.end_time), word.confidence)


def _seconds(duration: Duration) -> float:
    return duration.ToMilliseconds() / 1000
