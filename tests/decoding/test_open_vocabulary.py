from __future__ import annotations

import difflib
import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.decoding import open_vocabulary
from asr_service.decoding.hypothesis import TimedWord
from asr_service.decoding.open_vocabulary import (
    MAX_COMPARED,
    MAX_TRIED,
    NEAR,
    PART_COMPARED,
    ExpectedSpellings,
    spelled_words,
    with_spelled_words,
)
from asr_service.parts import at_once
from asr_service.tokenizer import WordPieces


@pytest.fixture(scope="module")
def pieces() -> WordPieces:
    return WordPieces.train(["the old ship sailed on the old sea"] * 3, 48)


def path(pieces: WordPieces, text: str, gap: int) -> np.ndarray:
    """(T8, V): each token for one frame, `gap` blanks after it."""
    return one_hot(pieces, [label for token in pieces.encode(text) for label in (token, *[0] * gap)])


def one_hot(pieces: WordPieces, labels: list[int]) -> np.ndarray:
    log_probs = np.full((len(labels), pieces.vocab_size), -9.0, dtype=np.float32)
    log_probs[np.arange(len(labels)), labels] = -0.01
    return log_probs


def test_spelled_words_are_those_of_the_best_path_and_fill_the_time(pieces: WordPieces) -> None:
    log_probs = path(pieces, "the sea ship", 2)
    words = spelled_words(pieces, log_probs, ratio=2)
    assert [word.text for word in words] == ["the", "sea", "ship"]
    assert [word.end_frame for word in words[:-1]] == [word.start_frame for word in words[1:]]
    assert words[-1].end_frame == 2 * len(log_probs)
    unmerged = spelled_words(pieces, log_probs, ratio=1)
    assert [(2 * word.start_frame, 2 * word.end_frame) for word in unmerged] == [
        (word.start_frame, word.end_frame) for word in words
    ]


def test_silence_spells_nothing(pieces: WordPieces) -> None:
    assert spelled_words(pieces, path(pieces, "", 1), ratio=2) == []
    blank = np.zeros((4, pieces.vocab_size), dtype=np.float32)
    blank[:, 0] = 1.0
    assert spelled_words(pieces, blank, ratio=2) == []


def test_an_unknown_spelling_replaces_the_words_it_overlaps_most_and_a_known_one_nothing() -> None:
    found = (TimedWord("the", 0, 4), TimedWord("mean", 5, 8), TimedWord("kin", 9, 13), TimedWord("said", 14, 20))
    spelled = [TimedWord("the", 0, 5), TimedWord("meekin", 3, 16), TimedWord("sad", 14, 22)]
    results = with_spelled_words(found, spelled, {"the", "mean", "kin", "said", "sad"})
    assert [[word.text for word in words] for words in results] == [["the", "meekin", "said"]]
    assert results[0][1] == TimedWord("meekin", 5, 13)


def test_a_spelling_where_the_beam_found_nothing_is_left_out() -> None:
    assert with_spelled_words((TimedWord("a", 0, 4),), [TimedWord("zzz", 30, 40)], {"a"}) == []


def test_expected_words_are_tried_where_they_are_nearly_spelled() -> None:
    expected = ExpectedSpellings(["metternich", "katowice", "zzyzx"])
    spelled = [
        TimedWord("the", 0, 5),
        TimedWord("meternik", 5, 14),
        TimedWord("zzyzx", 14, 22),
        TimedWord("cat", 22, 30),
    ]
    assert at_once(expected.near(spelled)) == [TimedWord("metternich", 5, 14)]
    assert at_once(ExpectedSpellings([]).near(spelled)) == []
    assert len(at_once(expected.near([spelled[1]] * 20))) == MAX_TRIED


def in_turn(texts: Sequence[str]) -> list[TimedWord]:
    return [TimedWord(text, 10 * place, 10 * place + 9) for place, text in enumerate(texts)]


WORDS = st.lists(st.text("sta", min_size=1, max_size=7), max_size=12)


@given(WORDS, WORDS)
def test_the_expected_word_that_is_tried_is_the_nearest(expected: list[str], spelled: list[str]) -> None:
    nearest = []
    for word in in_turn(spelled):
        candidates = sorted({text for text in expected if text[0] == word.text[0]})
        for text in difflib.get_close_matches(word.text, candidates, n=1, cutoff=NEAR):
            nearest += [TimedWord(text, word.start_frame, word.end_frame)] * (text != word.text)
    assert at_once(ExpectedSpellings(expected).near(in_turn(spelled))) == nearest[:MAX_TRIED]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Pairs of words that were compared, the expected one first."""
    compared: list[tuple[str, str]] = []
    original = difflib.SequenceMatcher.set_seq1

    def set_seq1(matcher: difflib.SequenceMatcher, text: str) -> None:
        if text:
            compared.append((text, matcher.b))
        original(matcher, text)

    monkeypatch.setattr(difflib.SequenceMatcher, "set_seq1", set_seq1)
    return compared


def test_words_are_compared_once_and_not_where_enough_are_found_or_their_lengths_differ(compared) -> None:
    expected = ExpectedSpellings(["".join(letters) for letters in itertools.product("sz", repeat=6)] + ["s" * 50])
    texts = ["sh" + "".join(letters) for letters in itertools.product("sz", repeat=4)]
    assert len(at_once(expected.near(in_turn(["shs", *texts[:4] * 3, *texts])))) == MAX_TRIED
    assert {spelled for _, spelled in compared} == set(texts[:4])
    assert len(compared) == len(set(compared)) == 4 * 2**5


def test_what_an_utterance_and_a_part_of_it_compare_is_bounded(compared) -> None:
    rng = random.Random(0)
    expected = ExpectedSpellings({"s" + "".join(rng.sample("abcdefghij" * 2, 9)) for _ in range(2_000)})
    strange = ["s" + "".join(letters) for letters in itertools.islice(itertools.permutations("klmnopqrt", 9), 60)]
    parts = expected.near(in_turn(strange))
    most = 0
    while True:
        before = len(compared)
        ended = next(parts, parts) is parts
        most = max(most, len(compared) - before)
        if ended:
            break
    assert 0 < most * 10 * 10 <= PART_COMPARED
    assert len(compared) * 10 * 10 == MAX_COMPARED


def test_a_spelling_without_letters_replaces_nothing(pieces: WordPieces) -> None:
    (space,) = spelled_words(pieces, one_hot(pieces, [pieces.pieces.index("▁"), 0, 0]), ratio=2)
    assert space.text == ""
    assert with_spelled_words((TimedWord("a", 0, 4),), [space], {"a"}) == []


def test_a_word_whose_middle_lies_between_two_spellings_is_replaced_by_the_later_one_alone() -> None:
    spelled = [TimedWord("me", 0, 6), TimedWord("kin", 6, 12)]
    results = with_spelled_words((TimedWord("mean", 4, 8),), spelled, {"mean"})
    assert results == [(TimedWord("kin", 4, 8),)]


def test_what_was_found_before_there_was_too_much_to_compare_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_vocabulary, "MAX_COMPARED", 100)
    spelled = in_turn(["meternik", "mitternick"])
    assert [word.text for word in at_once(ExpectedSpellings(["metternich"]).near(spelled))] == ["metternich"]


def test_a_spelling_as_near_as_is_asked_for_is_near() -> None:
    expected, spelled = "abcdefghijklm", "abcdefg"
    assert difflib.SequenceMatcher(None, expected, spelled).ratio() == NEAR
    assert [word.text for word in at_once(ExpectedSpellings([expected]).near(in_turn([spelled])))] == [expected]
