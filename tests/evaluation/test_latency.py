"""Latency on a virtual clock, from scripted streams whose numbers can be checked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.evaluation.latency import DisplayLog, StreamLog, VirtualClock, uncovered
from asr_service.types import SpeechEvent, SpeechEventKind, Word


def words(*texts: str, start_s: float = 0.0, length_s: float = 0.5) -> tuple[Word, ...]:
    """Words one after the other, each `length_s` long."""
    return tuple(
        Word(text, start_s + place * length_s, start_s + (place + 1) * length_s, 1.0)
        for place, text in enumerate(texts)
    )


def test_computation_delays_what_comes_after_it_only_while_the_machine_is_behind() -> None:
    clock = VirtualClock()
    assert clock.work(0.1, 0.05) == pytest.approx(0.15)
    assert clock.work(0.2, 0.30) == pytest.approx(0.5)  # was free at 0.15: begins on arrival
    assert clock.work(0.3, 0.05) == pytest.approx(0.55)  # waits for the one before
    assert clock.work(1.0, 0.05) == pytest.approx(1.05)  # has caught up
    assert clock.computed_s == pytest.approx(0.45)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=20))
def test_the_clock_never_runs_before_the_audio_nor_beyond_all_computation_after_it(
    steps: list[tuple[float, float]],
) -> None:
    clock, arrived_s = VirtualClock(), 0.0
    for wait_s, computation_s in steps:
        arrived_s += wait_s
        done_s = clock.work(arrived_s, computation_s)
        # SimulEval's elapsed time, all computation added to what was read, is an upper bound of a queue's.
        assert arrived_s + computation_s <= done_s + 1e-9
        assert done_s <= arrived_s + clock.computed_s + 1e-9


def test_a_word_counts_from_when_it_was_first_shown_and_stayed() -> None:
    log = DisplayLog()
    log.interim(0, "to", 0.8, 0.7)
    log.interim(0, "too be", 1.4, 1.3)  # "to" is revoked
    log.interim(0, "to be", 2.0, 1.9)  # "too" is revoked, "be" stays
    log.final(0, words("to", "be", "or"), 2.6, 2.5)
    timing = log.timing(processing_s=0.4, audio_s=2.5, uncovered_s=())
    assert timing.word_latencies_s == pytest.approx((2.0 - 0.5, 1.4 - 1.0, 2.6 - 1.5))
    assert timing.unaware_word_latencies_s == pytest.approx((1.9 - 0.5, 1.3 - 1.0, 2.5 - 1.5))
    assert timing.first_partial_s == pytest.approx(0.8)
    assert timing.unaware_first_partial_s == pytest.approx(0.7)
    assert timing.final_s == pytest.approx(0.1)
    assert timing.unaware_final_s == pytest.approx(0.0)
    assert (timing.emitted_words, timing.revoked_words) == (5, 2)


def test_a_word_that_moves_because_one_before_it_changed_has_stayed() -> None:
    log = DisplayLog()
    log.interim(0, "away we go", 1.0, 1.0)
    log.final(0, words("a", "way", "we", "go"), 3.0, 3.0)
    timing = log.timing(processing_s=0.0, audio_s=3.0, uncovered_s=())
    assert timing.word_latencies_s == pytest.approx((2.5, 2.0, -0.5, -1.0))  # shown before it was over
    assert (timing.emitted_words, timing.revoked_words) == (5, 1)


def test_the_first_partial_counts_from_the_start_of_the_first_word() -> None:
    log = DisplayLog()
    log.interim(0, "yes", 2.5, 2.4)
    log.final(0, words("yes", start_s=2.0), 3.5, 3.4)
    timing = log.timing(processing_s=0.0, audio_s=3.0, uncovered_s=())
    assert timing.first_partial_s == pytest.approx(0.5)


def test_utterances_of_one_stream_replace_only_themselves() -> None:
    log = DisplayLog()
    log.interim(0, "one", 1.0, 1.0)
    log.final(0, words("one"), 1.5, 1.5)
    log.interim(1, "two", 2.0, 2.0)
    log.final(1, words("two", start_s=1.5), 2.5, 2.5)
    timing = log.timing(processing_s=0.0, audio_s=2.0, uncovered_s=())
    assert (timing.emitted_words, timing.revoked_words) == (2, 0)
    assert [word.text for word in log.words] == ["one", "two"]
    assert timing.final_s == pytest.approx(0.5)


def test_interims_that_never_became_final_are_revoked() -> None:
    log = DisplayLog()
    log.interim(0, "noise here", 1.0, 1.0)
    timing = log.timing(processing_s=0.0, audio_s=2.0, uncovered_s=())
    assert (timing.emitted_words, timing.revoked_words) == (2, 2)
    assert timing.word_latencies_s == ()
    assert timing.first_partial_s == pytest.approx(1.0)  # from the start of the audio
    assert timing.final_s is None


def test_a_stream_without_words_has_no_latencies() -> None:
    timing = DisplayLog().timing(processing_s=0.1, audio_s=2.0, uncovered_s=())
    assert timing.first_partial_s is timing.final_s is timing.unaware_final_s is None
    assert timing.emitted_words == timing.revoked_words == 0


def test_a_clock_that_only_knows_the_wall_has_no_unaware_latencies() -> None:
    log = DisplayLog()
    log.interim(0, "yes", 1.0, None)
    log.final(0, words("yes"), 2.0, None)
    timing = log.timing(processing_s=None, audio_s=2.0, uncovered_s=())
    assert timing.word_latencies_s == pytest.approx((0.5,))
    assert timing.unaware_word_latencies_s == ()
    assert timing.unaware_first_partial_s is timing.unaware_final_s is None


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6), max_size=6), st.lists(st.sampled_from("abc"), max_size=6))
def test_emitted_less_revoked_words_are_the_final_ones(interims: list[list[str]], final: list[str]) -> None:
    log = DisplayLog()
    for number, interim in enumerate(interims):
        log.interim(0, " ".join(interim), float(number), float(number))
    log.final(0, words(*final), 9.0, 9.0)
    timing = log.timing(processing_s=0.0, audio_s=9.0, uncovered_s=())
    assert timing.emitted_words - timing.revoked_words == len(final) == len(timing.word_latencies_s)


@pytest.mark.parametrize(
    ("speech", "spoken", "expected"),
    [
        ([(0, 1.9)], [], ()),
        ([(0, 3)], [], (3,)),
        ([(0, 2), (5, 7)], [], ()),  # exactly two seconds, twice
        ([(0, 6)], [(2.5, 3.5)], (2.5, 2.5)),
        ([(0, 6)], [(1, 2), (3, 4.5)], ()),
        ([(0, 6)], [(1, 2), (5, 5.5)], (3,)),
        ([(4, 8)], [(0, 4), (8, 9)], (4,)),  # words that only touch it are outside
        ([(4, 8)], [(3, 5.5)], (2.5,)),
        ([(0, 9)], [(1, 6), (2, 3)], (3,)),  # words that overlap
        ([(0, 3), (10, 13), (20, 23)], [(11, 12), (1, 2)], (3,)),  # words in no order, several stretches
        ([(0, 5), (6, 11)], [(2, 9)], ()),  # a word over both
        ([(0, 5), (6, 14)], [(2, 9)], (5,)),
        ([], [(1, 2)], ()),
    ],
)
def test_speech_over_two_seconds_without_a_word_is_uncovered(
    speech: list[tuple[float, float]], spoken: list[tuple[float, float]], expected: tuple[float, ...]
) -> None:
    assert uncovered(speech, [Word("w", *span, 1.0) for span in spoken]) == pytest.approx(expected)


def test_somebody_who_still_speaks_at_the_end_speaks_up_to_it() -> None:
    log = StreamLog()
    log.event(SpeechEvent(SpeechEventKind.SPEECH_ACTIVITY_BEGIN, 1.0))
    log.event(SpeechEvent(SpeechEventKind.SPEECH_ACTIVITY_END, 2.0))
    log.event(SpeechEvent(SpeechEventKind.SPEECH_ACTIVITY_BEGIN, 3.0))
    output = log.output("a", processing_s=0.1, audio_s=6.5, timed=False)
    assert output.timing is not None and output.timing.uncovered_s == pytest.approx((3.5,))
    assert output.timing.word_latencies_s == ()


def test_somebody_who_has_stopped_speaking_is_silent_up_to_the_end() -> None:
    log = StreamLog()
    log.event(SpeechEvent(SpeechEventKind.SPEECH_ACTIVITY_BEGIN, 1.0))
    log.event(SpeechEvent(SpeechEventKind.SPEECH_ACTIVITY_END, 2.0))
    output = log.output("a", processing_s=0.1, audio_s=9.0, timed=True)
    assert output.timing is not None and output.timing.uncovered_s == ()
