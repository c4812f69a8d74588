"""Latencies by hand: from when a word was said, by the reference, until it was shown and stayed."""

from __future__ import annotations

import pytest

from asr_service.bench.heard import heard
from tests.bench.made_up import call_of, final, interim, record, text_clip

CAT = text_clip("cat", ("the", 0.2, 0.4), ("cat", 0.5, 0.9), ("sat", 1.0, 1.5))
DOG = text_clip("dog", ("a", 0.3, 0.4), ("dog", 0.6, 1.0))


def latencies(clip):
    return [(round(word.spoken_s, 3), round(word.latency_s, 3)) for word in clip.words]


def test_a_word_counts_from_its_end_in_the_reference_until_it_was_first_shown_and_stayed():
    (clip,) = heard(
        record(
            call_of(CAT),
            (0.7, interim("the")),
            (1.1, interim("the cap")),
            (1.3, interim("the cat")),
            (2.2, final(("the", 0.1, 0.3), ("cat", 0.5, 1.2), ("sat", 1.3, 1.9))),
            begun_s=10.0,
        )
    )
    # Not from the recogniser's own times, which may be late.
    assert latencies(clip) == [(10.4, 0.3), (10.9, 0.4), (11.5, 0.7)]
    assert clip.text == "the cat sat"
    assert clip.first_partial_s == pytest.approx(0.3)
    assert clip.closed and clip.final_s == pytest.approx(0.2)  # from the half-close, at 2.0 s


def test_words_that_are_wrong_missing_or_made_up_have_no_latency():
    (clip,) = heard(record(call_of(CAT), (2.1, final(("the", 0.2, 0.4), ("hat", 0.5, 0.9), ("on", 0.9, 1.0)))))
    assert latencies(clip) == [(0.4, 1.7)]
    (clip,) = heard(record(call_of(CAT), (2.1, final(("cat", 0.5, 0.9), ("sat", 1.0, 1.5), ("down", 1.6, 1.9)))))
    assert latencies(clip) == [(0.9, 1.2), (1.5, 0.6)]


def test_words_belong_to_the_clip_in_which_they_lie_and_finals_to_the_end_of_its_speech():
    first, second = heard(
        record(
            call_of(CAT, DOG),  # the second clip from 3.0 s on
            (0.8, interim("the")),
            (2.4, final(("the", 0.2, 0.4), ("cat", 0.5, 0.9), ("sat", 1.0, 1.5))),
            (3.9, interim("a", 1)),
            (5.5, final(("a", 3.3, 3.4), ("dog", 3.6, 4.0), utterance=1)),
        )
    )
    assert (first.text, second.text) == ("the cat sat", "a dog")
    assert not first.closed and first.final_s == pytest.approx(0.9)  # 2.4 - 1.5
    assert second.closed and second.final_s == pytest.approx(0.5)  # 5.5 - 5.0
    assert second.first_partial_s == pytest.approx(0.5)  # 3.9 - 3.4
    assert latencies(second) == [(3.4, 0.5), (4.0, 1.5)]


def test_an_utterance_that_goes_on_over_the_pause_is_shown_in_the_second_clip_when_its_words_are():
    first, second = heard(
        record(
            call_of(CAT, DOG),
            (0.8, interim("the")),
            (3.8, interim("the cat sat a")),
            (5.5, final(("the", 0.2, 0.4), ("cat", 0.5, 0.9), ("sat", 1.0, 1.5), ("a", 3.3, 3.4), ("dog", 3.6, 4.0))),
        )
    )
    assert first.first_partial_s == pytest.approx(0.4)
    assert second.first_partial_s == pytest.approx(0.4)
    assert (first.text, second.text) == ("the cat sat", "a dog")


def test_what_is_shown_before_the_first_word_begins_is_not_its_first_partial():
    (clip,) = heard(record(call_of(CAT), (0.1, interim("uh")), (0.9, interim("the")), (2.1, final(("the", 0.2, 0.4)))))
    assert clip.first_partial_s == pytest.approx(0.5)


def test_the_first_partial_is_the_first_word_that_was_shown_right_or_wrong():
    shown = (0.5, interim(" ")), (0.7, interim("duh")), (0.9, interim("the")), (2.1, final(("the", 0.2, 0.4)))
    (clip,) = heard(record(call_of(CAT), *shown))
    assert clip.first_partial_s == pytest.approx(0.3)


def test_an_utterance_that_ends_inside_a_clip_is_told_with_the_speakers_pause_there():
    (clip,) = heard(
        record(
            call_of(CAT),
            (1.9, final(("the", 0.2, 0.4), ("hat", 0.5, 0.9))),  # wrong, but a word in its place
            (2.2, final(("sat", 1.0, 1.5), utterance=1)),
        )
    )
    assert clip.splits_s == pytest.approx((0.1,)) and clip.utterances == 2
    (clip,) = heard(record(call_of(CAT), (1.9, final(("the", 0.2, 0.4))), (2.2, final(("sat", 1.0, 1.5), utterance=1))))
    assert clip.splits_s == pytest.approx((0.1,))  # the longer of both pauses around the missing word
    first, second = heard(
        record(call_of(CAT, DOG), (2.4, final(("sat", 1.0, 1.5))), (5.5, final(("dog", 3.6, 4.0), utterance=1)))
    )
    assert (first.splits_s, second.splits_s) == ((), ())


def test_a_clip_without_an_answer_has_errors_and_no_latency():
    (clip,) = heard(record(call_of(CAT)))
    assert (clip.text, clip.words, clip.first_partial_s, clip.final_s) == ("", (), None, None)
