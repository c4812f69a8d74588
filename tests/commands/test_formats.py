"""Latency numbers and the view of a live stream, as pure functions."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.commands.latency import LatencyMeter, SendLog, in_real_time, summary
from asr_service.commands.live_view import _last_columns
from asr_service.types import Hypothesis, RecognitionResult, Word


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def result(index: int, is_final: bool, start_s: float, end_s: float) -> RecognitionResult:
    words = (Word("a", start_s, start_s + 0.1, 0.9), Word("b", end_s - 0.1, end_s, 0.9))
    return RecognitionResult((Hypothesis(words),), is_final, 0.0, start_s, end_s, index)


def test_latency_is_counted_from_when_the_speech_was_sent() -> None:
    clock = Clock()
    log = SendLog(0.1, clock)
    meter = LatencyMeter(log, clock)
    for _ in log.noted([b""] * 30):
        clock.now += 0.1
    clock.now = 3.5
    meter.note(result(0, False, 1.0, 1.5))
    clock.now = 3.6
    meter.note(result(0, False, 1.0, 2.0))
    clock.now = 4.0
    meter.note(result(0, True, 1.0, 2.0))
    assert meter.first_partial_s == [pytest.approx(2.5)]
    assert meter.final_s == [pytest.approx(2.0)]


def test_a_word_that_begins_with_a_chunk_was_sent_with_it() -> None:
    clock = Clock()
    log = SendLog(0.04, clock)
    for _ in log.noted([b""] * 100):
        clock.now += 1.0
    assert [log.sent_at(number * 40 / 1000) for number in range(100)] == list(range(100))


def test_chunks_in_real_time_stop_when_told() -> None:
    stop = threading.Event()
    chunks = in_real_time([b"a", b"b", b"c"], 0.01, stop)
    assert next(chunks) == b"a"
    stop.set()
    assert list(chunks) == []


def test_summary_says_how_many() -> None:
    assert summary([]) == "none"
    assert summary([0.5]) == "0.50 s"
    assert summary([0.5, 1.0]) == "p50 0.75 s, p95 0.97 s (2 utterances)"


@given(st.text("ab", max_size=30), st.text("cd", max_size=30), st.integers(1, 40))
def test_live_line_shows_the_end_of_the_text_and_fits(stable: str, tail: str, columns: int) -> None:
    shown = "".join(_last_columns(stable, tail, columns))
    assert len(shown) <= columns
    assert (stable + tail).endswith(shown)
