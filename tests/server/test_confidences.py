"""What finals and interims tell: confidences where something was estimated, and texts that can be concatenated."""

from __future__ import annotations

from asr_service.server.responses import streaming_response
from asr_service.streaming.updates import STABLE, UNSTABLE, StreamUpdate
from asr_service.types import Hypothesis, RecognitionConfig, RecognitionResult, Word
from tests.fake_engine import linear16, say
from tests.server.conftest import Service
from tests.server.messages import config, paced


def test_interims_have_no_words_and_a_confidence_that_says_so_and_finals_have_both(service: Service) -> None:
    wanted = {"enable_word_confidence": True, "enable_word_time_offsets": True}
    speech = linear16(say(1, 2, 3, 1.5, 4, 5))
    responses = service.stream([config(wanted, interim_results=True), *paced(speech, service.engine)])
    results = [result for response in responses for result in response.results]
    interims = [one for result in results if not result.is_final for one in result.alternatives]
    finals = [one for result in results if result.is_final for one in result.alternatives]
    assert interims and finals
    assert all(one.transcript and one.confidence == 0.0 and not one.words for one in interims)
    assert all(0.0 < one.confidence <= 1.0 and one.words for one in finals)
    assert all(0.0 < word.confidence <= 1.0 for one in finals for word in one.words)


def interims(utterance_index: int, *texts: str) -> list[str]:
    """The transcripts of a response with these interims of an utterance."""
    results = tuple(
        RecognitionResult(
            (Hypothesis(tuple(Word(word, 0.0, 0.1, 0.0) for word in text.split())),),
            is_final=False,
            stability=stability,
            start_s=0.0,
            end_s=1.0,
            utterance_index=utterance_index,
        )
        for text, stability in zip(texts, (STABLE, UNSTABLE), strict=False)
    )
    response = streaming_response(StreamUpdate(results, audio_received_s=1.0), RecognitionConfig(), "id")
    return [result.alternatives[0].transcript for result in response.results]


def test_all_texts_but_the_first_of_a_stream_have_a_space_before_them_and_none_where_there_is_no_text() -> None:
    assert interims(0, "one two", "three") == ["one two", " three"]
    assert interims(1, "one two", "three") == [" one two", " three"]
    assert interims(0, "") == interims(1, "") == [""]
