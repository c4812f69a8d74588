"""Confidences are told where something was estimated, in finals, and nowhere else."""

from __future__ import annotations

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
