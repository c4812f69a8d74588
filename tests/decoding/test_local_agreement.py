"""Promises of LocalAgreement-2: what is committed stays, needs two hypotheses, and is neither repeated nor lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asr_service.decoding.hypothesis import TimedWord
from asr_service.decoding.local_agreement import LocalAgreement
from asr_service.decoding.stabiliser import shared_length


def spoken(texts: list[str], start: int = 0, each: int = 30) -> list[TimedWord]:
    """Words one after the other, `each` frames long."""
    return [TimedWord(text, start + place * each, start + (place + 1) * each) for place, text in enumerate(texts)]


def texts(words: tuple[TimedWord, ...]) -> list[str]:
    return [word.text for word in words]


WORDS = st.lists(st.sampled_from("abc"), max_size=8)
HYPOTHESES = st.lists(WORDS.map(spoken), max_size=8)


@given(HYPOTHESES)
def test_committed_words_stay_and_every_answer_starts_with_them(hypotheses: list[list[TimedWord]]) -> None:
    agreement, before = LocalAgreement(), ()
    for hypothesis in hypotheses:
        agreement.update(hypothesis)
        assert agreement.committed[: len(before)] == before
        assert agreement.words[: len(agreement.committed)] == agreement.committed
        before = agreement.committed
    for hypothesis in hypotheses:
        ends = [word.end_frame for word in agreement.committed + agreement.beyond(hypothesis)]
        starts = [word.start_frame for word in agreement.committed + agreement.beyond(hypothesis)]
        assert starts == sorted(starts) and ends == sorted(ends)
        assert all(start < end for start, end in zip(starts, ends, strict=True))


@given(WORDS.map(spoken), WORDS.map(spoken))
def test_of_two_first_hypotheses_their_longest_common_prefix_is_committed(
    first: list[TimedWord], second: list[TimedWord]
) -> None:
    agreement = LocalAgreement()
    agreement.update(first)
    assert agreement.committed == ()
    agreement.update(second)
    count = shared_length([word.text for word in first], [word.text for word in second])
    assert agreement.committed == tuple(second[:count])
    assert agreement.words == tuple(second)


@given(st.lists(st.sampled_from("abcdef"), max_size=20), st.lists(st.integers(1, 4), max_size=30), st.data())
def test_a_decoder_that_errs_in_its_last_word_only_is_taken_down_word_for_word(
    said: list[str], steps: list[int], data: st.DataObject
) -> None:
    """Whatever the window grows by, and wherever it is cut."""
    agreement, heard, cut = LocalAgreement(), 0, 0
    for step in steps:
        heard = min(len(said), heard + step)
        hypothesis = spoken(said[cut:heard], cut * 30)
        if hypothesis and heard < len(said):
            wrong = data.draw(st.sampled_from("xyz"))
            hypothesis[-1] = TimedWord(wrong, hypothesis[-1].start_frame, hypothesis[-1].end_frame)
        agreement.update(hypothesis)
        committed = texts(agreement.committed)
        assert committed == said[: len(committed)]
        if len(committed) > cut + 1:
            cut = data.draw(st.integers(cut, len(committed) - 1))
            agreement.forget(cut)
    rest = agreement.beyond(spoken(said[cut:], cut * 30))
    assert texts(agreement.committed + rest) == said


def test_a_later_hypothesis_that_spells_committed_words_otherwise_is_passed_over_there() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        agreement.update(spoken(["any", "one", "can"]))
    assert texts(agreement.beyond(spoken(["anyone", "scan", "see", "it"]))) == ["it"]


def test_a_word_at_the_seam_is_not_taken_twice_but_one_that_was_said_twice_is() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        agreement.update(spoken(["go", "on"]))
    agreement.forget(2)
    seam = [TimedWord("on", 52, 64), TimedWord("with", 70, 90)]
    assert texts(agreement.beyond(seam)) == ["with"]
    again = [TimedWord("on", 95, 120), TimedWord("with", 120, 150)]
    assert texts(agreement.beyond(again)) == ["on", "with"]


def test_a_word_that_begins_a_little_before_the_committed_ones_end_is_new_and_lies_behind_them() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        agreement.update(spoken(["go", "on"]))
    agreement.forget(2)
    heard = [TimedWord("in", 49, 50), TimedWord("with", 50, 58), TimedWord("us", 59, 80)]
    assert agreement.beyond(heard) == (TimedWord("with", 60, 61), TimedWord("us", 60, 80))


def test_after_a_reset_an_utterance_is_followed_as_the_first() -> None:
    used, fresh = LocalAgreement(), LocalAgreement()
    for hypothesis in (["go", "on"], ["go", "on"], ["go", "on", "see"]):
        used.update(spoken(hypothesis))
    used.forget(2)
    used.reset()
    for hypothesis, each in ((["see"], 30), (["see", "a"], 15), (["see", "a", "cat"], 10), (["see", "a", "cat"], 4)):
        for agreement in (used, fresh):
            agreement.update(spoken(hypothesis, each=each))
        assert (used.committed, used.words) == (fresh.committed, fresh.words)
    assert texts(fresh.committed) == ["see", "a", "cat"]


def test_up_to_five_words_right_behind_the_committed_ones_may_be_their_repetition() -> None:
    said = ["a", "b", "c", "d", "e", "f"]
    for length, new in ((1, ["g"]), (2, ["g"]), (5, ["g"]), (6, [*said, "g"])):
        agreement = LocalAgreement()
        for _ in range(2):
            agreement.update(spoken(said))
        agreement.forget(6)
        end = agreement.committed[-1].end_frame
        assert texts(agreement.beyond(spoken([*said[-length:], "g"], end + 10))) == new
        assert texts(agreement.beyond(spoken([*said[-length:], "g"], end + 11))) == [*said[-length:], "g"]
