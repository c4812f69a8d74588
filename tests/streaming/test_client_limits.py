"""Idle timer and message limit, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asr_service.config import StreamSettings
from asr_service.errors import StreamIdle, TooManyMessages
from asr_service.streaming.client_limits import EmptyMessageLimit, IdleTimer
from asr_service.streaming.session import Session
from tests.streaming.test_session import Clock, HandDriven, push, session

SETTINGS = StreamSettings(idle_timeout_s=10.0, idle_min_audio_s=0.1, empty_message_burst=5, empty_messages_per_s=2.0)


def test_silence_of_the_client_ends_a_stream() -> None:
    timer = IdleTimer(SETTINGS, now=100.0)
    timer.check(109.9)
    with pytest.raises(StreamIdle, match="10 s"):
        timer.check(110.0)


def test_audio_and_keep_alive_restart_the_timer() -> None:
    timer = IdleTimer(SETTINGS, now=0.0)
    timer.audio(8.0, 0.2)
    timer.check(17.0)
    timer.restart(17.0, 0.2)
    timer.check(26.0)


def test_trickle_of_audio_is_no_sign_of_life() -> None:
    timer = IdleTimer(SETTINGS, now=0.0)
    for second in range(10):
        timer.audio(float(second), second * 0.001)
    with pytest.raises(StreamIdle):
        timer.check(10.0)


def test_small_pieces_of_audio_add_up() -> None:
    timer = IdleTimer(SETTINGS, now=0.0)
    for second in range(1, 100):
        timer.audio(float(second), second * 0.02)
        timer.check(float(second))


def test_trickle_after_audio_is_no_sign_of_life() -> None:
    timer = IdleTimer(SETTINGS, now=0.0)
    timer.audio(1.0, 5.0)
    timer.audio(9.0, 5.05)
    with pytest.raises(StreamIdle):
        timer.check(11.0)


@pytest.mark.parametrize("now", [0.0, 1000.0])
def test_burst_of_empty_messages_is_taken_and_no_more(now: float) -> None:
    limit = EmptyMessageLimit(SETTINGS, now=0.0)
    for _ in range(5):
        limit.count(now)
    with pytest.raises(TooManyMessages, match="5"):
        limit.count(now)


def test_empty_messages_beyond_the_documented_rate_are_refused_in_the_end() -> None:
    limit, times = EmptyMessageLimit(SETTINGS, now=0.0), (number * 0.4 for number in range(100))
    with pytest.raises(TooManyMessages):
        list(map(limit.count, times))


def test_empty_messages_at_the_documented_rate_are_taken_for_ever() -> None:
    limit = EmptyMessageLimit(SETTINGS, now=0.0)
    for number in range(1000):
        limit.count(number * 0.5)


@pytest.mark.parametrize("sign", [Session.keep_alive, Session.reading_resumed])
def test_a_trickle_of_audio_after_another_sign_of_life_is_none(sign: Callable[[Session], None]) -> None:
    clock = Clock()
    stream = session(HandDriven(), clock, SETTINGS)
    push(stream, bytes(32_000))
    stream.audio_arrived()
    clock.now = 5.0
    sign(stream)
    clock.now = 9.0
    push(stream, bytes(640))
    stream.audio_arrived()
    assert stream.idle_deadline == 15.0


def test_audio_that_waits_for_room_has_been_received() -> None:
    stream = session(HandDriven(), Clock())
    assert len(next(stream.decode(bytes(64_000)))) < 32_000
    assert stream.received_s == 2.0
