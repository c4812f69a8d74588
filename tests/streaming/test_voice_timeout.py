"""Voice activity timeouts are decided on stream time."""

from __future__ import annotations

import pytest

from asr_service.engine.interface import Finished, FrameEvidence, Partial
from asr_service.errors import ShuttingDown
from asr_service.streaming.session import End, VoiceTimeout
from asr_service.streaming.voice_timeout import VoiceTimeoutPolicy
from tests.streaming.test_session import Clock, HandDriven, final, hypothesis, session

PERIOD_S = 0.1


class Never:
    def observe(self, evidence: FrameEvidence) -> bool:
        return False


class Always:
    def observe(self, evidence: FrameEvidence) -> bool:
        return True


def timeouts(speech: str, start_s: float | None, end_s: float | None) -> list[float]:
    """Play `speech` (x speech, w a quiet word, . silence), one character per 0.1 s; return when timeouts were told."""
    told: list[float] = []
    policy = VoiceTimeoutPolicy(Never(), start_timeout_s=start_s, end_timeout_s=end_s, on_timeout=told.append)
    ends = []
    for index, character in enumerate(speech, start=1):
        if policy.observe(FrameEvidence(index * PERIOD_S, character == "x", False, character == "w", 0.0)):
            ends.append(index * PERIOD_S)
    assert ends == told  # the utterance ends where the timeout passes
    return told


def test_no_speech_at_the_start() -> None:
    assert timeouts("." * 30, 1.0, None) == [pytest.approx(1.0)]


def test_speech_in_time_disarms_the_start_timeout() -> None:
    assert timeouts("." * 8 + "xx" + "." * 40, 1.0, None) == []


def test_speech_that_begins_in_the_last_moment_is_in_time() -> None:
    assert timeouts("." * 9 + "xx" + "." * 40, 1.0, None) == []
    assert timeouts("xx" + "." * 9 + "xx" + "." * 30, None, 1.0) == [pytest.approx(2.3)]


def test_a_click_is_no_speech() -> None:
    assert timeouts("." * 5 + "x" + "." * 40, 1.0, None) == [pytest.approx(1.0)]
    assert timeouts("xx" + "." * 9 + "x" + "." * 30, None, 2.0) == [pytest.approx(2.2)]
    assert timeouts("." * 5 + "x" + "." * 100, None, 2.0) == []


def test_a_word_that_only_the_model_heard_is_speech() -> None:
    assert timeouts("." * 9 + "w" + "." * 40, 1.0, None) == []
    assert timeouts("xx" + "." * 9 + "w" + "." * 30, None, 2.0) == [pytest.approx(3.2)]


def test_what_is_told_again_after_a_cut_does_not_take_a_word_back() -> None:
    told: list[float] = []
    policy = VoiceTimeoutPolicy(Never(), start_timeout_s=None, end_timeout_s=0.4, on_timeout=told.append)
    before = ((1, "x"), (2, "x"), (3, "."), (4, "w"), (5, "."))
    again = ((1, "x"), (2, "x"), (5, "."), (6, "."), (7, "."))
    for number, character in before + again:
        policy.observe(FrameEvidence(number * PERIOD_S, character == "x", False, character == "w", 0.0))
    assert told == []


def test_utterances_still_end_where_the_policy_inside_ends_them() -> None:
    told: list[float] = []
    policy = VoiceTimeoutPolicy(Always(), start_timeout_s=1.0, end_timeout_s=1.0, on_timeout=told.append)
    assert policy.observe(FrameEvidence(0.1, True, False, False, 0.0))
    assert told == []


def test_no_speech_after_speech() -> None:
    assert timeouts(".....xxxxx" + "." * 30, None, 2.0) == [pytest.approx(3.0)]


def test_end_timeout_does_not_run_before_speech_has_begun() -> None:
    assert timeouts("." * 100, None, 2.0) == []


def test_a_timeout_is_told_once() -> None:
    assert len(timeouts("xx" + "." * 100, 0.5, 2.0)) == 1


def test_an_utterance_that_begins_where_the_timeout_passes_is_not_told() -> None:
    engine = HandDriven()
    stream = session(engine, Clock(), speech_end_timeout_s=1.0)
    engine.put(VoiceTimeout(3.0))
    engine.put(Partial(hypothesis("late", 3.0), 0, 3, 3.0, 3.5))
    engine.put(final("late", 3))
    stream.collect()
    told, nothing = stream.take(), stream.take()
    assert told is not None and told.event is not None
    assert nothing is None


def test_a_stream_that_a_timeout_ends_asks_the_engine_for_nothing_more() -> None:
    engine = HandDriven()
    stream = session(engine, Clock(), speech_end_timeout_s=1.0)
    engine.put(VoiceTimeout(3.0))
    stream.collect()
    stream.flush()
    stream.finish(ShuttingDown("later"))
    assert engine.calls == ["finish"]
    engine.put(Finished())
    stream.collect()
    assert (stream.end, stream.error) == (End.COMPLETED, None)
