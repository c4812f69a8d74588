"""Messages of the server as our own types."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.types import Hypothesis, RecognitionResult, SpeechEvent, SpeechEventKind, Word


def result_of(result: pb.StreamingRecognitionResult) -> RecognitionResult:
    """A result as our own type. Where the message has no words, as in interims and in finals that were asked for
    without, they are those of the transcript, each from the result's start to its end, as sure as the alternative.
    """
    start_s, end_s = _seconds(result.result_start_time), _seconds(result.result_end_time)
    return RecognitionResult(
        alternatives=tuple(_hypothesis(alternative, start_s, end_s) for alternative in result.alternatives),
        is_final=result.is_final,
        stability=result.stability,
        start_s=start_s,
        end_s=end_s,
        utterance_index=result.utterance_index,
    )


def event_of(event: pb.SpeechEvent) -> SpeechEvent:
    """An event as our own type."""
    return SpeechEvent(SpeechEventKind(pb.SpeechEvent.Type.Name(event.type).lower()), _seconds(event.time))


def _hypothesis(alternative: pb.SpeechRecognitionAlternative, start_s: float, end_s: float) -> Hypothesis:
    words = [_word(word) for word in alternative.words] or [
        Word(text, start_s, end_s, alternative.confidence) for text in alternative.transcript.split()
    ]
    return Hypothesis(tuple(words), 0.0, alternative.confidence)


def _word(word: pb.Word) -> Word:
    return Word(word.word, _seconds(word.start_time), _seconds(word.end_time), word.confidence)


def _seconds(duration: Duration) -> float:
    return duration.ToMilliseconds() / 1000
