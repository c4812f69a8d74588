"""Recognition by a server, as our own types."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from asr_service.client import Client
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.types import Hypothesis, RecognitionResult, Word


def finals_of_stream(client: Client, chunks: Iterable[bytes], **options: object) -> list[RecognitionResult]:
    """Send bytes as one stream; return its finals, with words. Raises ServiceError, and what `chunks` raises."""
    responses = client.stream(chunks, enable_word_time_offsets=True, enable_word_confidence=True, **options)
    return [result_of(result) for response in responses for result in response.results if result.is_final]


def result_of(result: pb.StreamingRecognitionResult) -> RecognitionResult:
    alternatives = tuple(
        Hypothesis(tuple(_word(word) for word in alternative.words), 0.0, alternative.confidence)
        for alternative in result.alternatives
    )
    return RecognitionResult(
        alternatives=alternatives,
        is_final=result.is_final,
        stability=result.stability,
        start_s=seconds(result.result_start_time),
        end_s=seconds(result.result_end_time),
        utterance_index=result.utterance_index,
    )


def seconds(duration: Duration) -> float:
    return duration.ToMilliseconds() / 1000


def _word(word: pb.Word) -> Word:
    return Word(word.word, seconds(word.start_time), seconds(word.end_time), word.confidence)
