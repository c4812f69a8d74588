"""Stable words never change, and confidences are shares of the n-best list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.decoding.confidence import posteriors, word_confidences
from asr_service.decoding.hypothesis import TimedWord
from asr_service.decoding.stabiliser import Stabiliser, shared_length


def placed(text, start=0):
    return tuple(TimedWord(word, start + 10 * i, start + 10 * i + 8) for i, word in enumerate(text.split()))


def texts(words):
    return " ".join(word.text for word in words)


def test_words_shared_by_the_beam_are_stable_at_once():
    stabiliser = Stabiliser()
    assert texts(stabiliser.update(placed("i see a"), shared=2)) == "i see a"
    assert texts(stabiliser.stable) == "i see"


def test_without_agreement_unchanged_words_never_become_stable():
    stabiliser = Stabiliser()
    for _ in range(20):
        stabiliser.update(placed("i see a"), shared=0)
    assert stabiliser.stable == ()


def test_a_word_becomes_stable_after_standing_unchanged_for_the_given_updates():
    stabiliser = Stabiliser(agreement=3)
    for shown, stable in [("i", ""), ("i see", ""), ("i see a", "i"), ("i see the", "i see"), ("i see the", "i see")]:
        stabiliser.update(placed(shown), shared=0)
        assert texts(stabiliser.stable) == stable


def test_a_search_that_leaves_the_stable_words_is_overruled():
    stabiliser = Stabiliser()
    stabiliser.update(placed("i see a"), shared=2)
    shown = stabiliser.update(placed("eye sea a cat"), shared=0)
    assert texts(shown) == "i see a cat"
    assert texts(stabiliser.splice(placed("icy a cat"))) == "i see cat"


def test_reset_forgets_the_utterance():
    stabiliser = Stabiliser(agreement=1)
    stabiliser.update(placed("i see"), shared=2)
    stabiliser.reset()
    assert stabiliser.stable == ()
    assert texts(stabiliser.update(placed("a cat"), shared=0)) == "a cat"
    stabiliser = Stabiliser(agreement=2)
    stabiliser.update(placed("i see"), shared=0)
    stabiliser.reset()
    stabiliser.update(placed("i see"), shared=0)
    assert stabiliser.stable == (), "it stood there for one update only"


hypotheses = st.lists(st.sampled_from(["a", "b", "c"]), max_size=6).map(" ".join)


@given(st.lists(st.tuples(hypotheses, st.integers(0, 6)), max_size=20), st.integers(0, 3))
def test_what_was_stable_starts_everything_shown_later(updates, agreement):
    stabiliser = Stabiliser(agreement)
    before = ()
    for best, shared in updates:
        shown = stabiliser.update(placed(best), shared)
        assert shown[: len(before)] == before
        assert stabiliser.stable[: len(before)] == before
        assert shown[: len(stabiliser.stable)] == stabiliser.stable
        before = stabiliser.stable


def test_agreement_below_zero_is_refused():
    with pytest.raises(ValueError, match="agreement"):
        Stabiliser(-1)


@given(hypotheses, hypotheses)
def test_the_shared_length_is_the_longest_common_prefix(left, right):
    a, b = left.split(), right.split()
    count = shared_length(a, b)
    assert a[:count] == b[:count]
    assert count == min(len(a), len(b)) or a[count] != b[count]


def test_posteriors_sum_to_one_and_scale_flattens_them():
    sharp, flat = posteriors([-1.0, -3.0], 1.0), posteriors([-1.0, -3.0], 0.1)
    assert sharp.sum() == pytest.approx(1.0)
    assert sharp[0] / sharp[1] == pytest.approx(7.389, abs=1e-3)
    assert flat[0] < sharp[0]


def test_posteriors_of_a_long_utterances_scores_are_those_of_their_differences():
    assert posteriors([-5001.0, -5003.0]) == pytest.approx(posteriors([-1.0, -3.0]))
    assert posteriors([5003.0, 5001.0]) == pytest.approx(posteriors([-1.0, -3.0]))


def test_a_word_is_as_sure_as_the_hypotheses_that_have_it_at_its_place():
    best, other, elsewhere = placed("i see a"), placed("i sea a"), placed("see", start=60)
    found = word_confidences(best, [best, other, elsewhere], [0.5, 0.3, 0.2])
    assert found == pytest.approx((0.8, 0.5, 0.8))


def test_confidences_stay_in_the_unit_interval_despite_rounding():
    best = placed("a")
    assert word_confidences(best, [best] * 3, [0.4, 0.4, 0.2000001]) == (1.0,)


def test_what_a_search_that_left_the_stable_words_is_sure_of_makes_no_shown_word_stable():
    stabiliser = Stabiliser()
    stabiliser.update(placed("i see a"), shared=2)
    stabiliser.update(placed("eye sea a cat"), shared=4)
    assert texts(stabiliser.stable) == "i see"


def test_a_word_that_begins_where_the_last_stable_one_ends_is_shown():
    stabiliser = Stabiliser()
    stabiliser.update((TimedWord("i", 0, 8),), shared=1)
    assert texts(stabiliser.splice((TimedWord("eye", 0, 8), TimedWord("see", 8, 16)))) == "i see"


def test_the_same_word_right_before_or_after_makes_a_word_no_surer():
    said = (TimedWord("bye", 0, 8), TimedWord("bye", 8, 16))
    assert word_confidences(said, [said, said[:1], said[1:]], [0.5, 0.3, 0.2]) == pytest.approx((0.8, 0.7))


def test_all_words_are_stable_where_all_have_stood_unchanged():
    stabiliser = Stabiliser(agreement=2)
    for _ in range(2):
        stabiliser.update(placed("i see"), shared=0)
    assert texts(stabiliser.stable) == "i see"


def test_stable_words_are_shown_where_they_are_heard_now():
    stabiliser = Stabiliser()
    stabiliser.update((TimedWord("i", 0, 12),), shared=1)
    moved = (TimedWord("i", 0, 8), TimedWord("see", 8, 16))
    assert stabiliser.update(moved, shared=1) == moved
