"""Results of the server as our own types (`client.result_of`)."""

from __future__ import annotations

from asr_service.client import result_of
from asr_service.server.responses import streaming_response
from asr_service.streaming.updates import UNSTABLE, StreamUpdate
from asr_service.types import Hypothesis, RecognitionConfig, RecognitionResult, Word

WORDS = (Word("one", 0.2, 0.5, 0.9), Word("two", 0.6, 0.8, 0.7))
FINAL = RecognitionResult((Hypothesis(WORDS, 0.0, 0.8),), True, 0.0, 0.1, 1.0, 3)


def received(result: RecognitionResult, config: RecognitionConfig) -> RecognitionResult:
    """A result by way of its message."""
    (message,) = streaming_response(StreamUpdate((result,), audio_received_s=1.0), config, "id").results
    made = result_of(message)
    assert (made.is_final, made.start_s, made.end_s, made.utterance_index) == (result.is_final, 0.1, 1.0, 3)
    return made


def confidences(hypothesis: Hypothesis) -> list[float]:
    return [round(word.confidence, 6) for word in hypothesis.words]


def test_words_are_those_of_the_message_where_it_has_them() -> None:
    (best,) = received(FINAL, RecognitionConfig(word_time_offsets=True, word_confidence=True)).alternatives
    assert best.text == "one two"
    assert [(word.start_s, word.end_s) for word in best.words] == [(0.2, 0.5), (0.6, 0.8)]
    assert confidences(best) == [0.9, 0.7]


def test_without_word_times_the_words_of_the_transcript_lie_anywhere_in_the_result() -> None:
    (best,) = received(FINAL, RecognitionConfig()).alternatives
    assert best.text == "one two"
    assert {(word.start_s, word.end_s) for word in best.words} == {(0.1, 1.0)}
    assert confidences(best) == [0.8, 0.8]


def test_interims_have_their_text() -> None:
    shown = RecognitionResult((Hypothesis((Word("one", 0.2, 0.5, 0.0),)),), False, UNSTABLE, 0.1, 1.0, 3)
    nothing = RecognitionResult((Hypothesis(()),), False, UNSTABLE, 0.1, 1.0, 3)
    assert received(shown, RecognitionConfig()).alternatives[0].text == "one"
    assert received(nothing, RecognitionConfig()).alternatives == (Hypothesis(()),)
