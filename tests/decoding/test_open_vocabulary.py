from __future__ import annotations

import numpy as np
import pytest

from asr_service.decoding.hypothesis import TimedWord
from asr_service.decoding.open_vocabulary import (
    MAX_TRIED,
    ExpectedSpellings,
    spelled_words,
    with_spelled_words,
)
from asr_service.tokenizer import WordPieces


@pytest.fixture(scope="module")
def pieces() -> WordPieces:
    return WordPieces.train(["the old ship sailed on the old sea"] * 3, 48)


def path(pieces: WordPieces, text: str, gap: int) -> np.ndarray:
    """(T8, V): each token for one frame, `gap` blanks after it."""
    labels = [label for token in pieces.encode(text) for label in (token, *[0] * gap)]
    log_probs = np.full((len(labels), pieces.vocab_size), -9.0, dtype=np.float32)
    log_probs[np.arange(len(labels)), labels] = -0.01
    return log_probs


def test_spelled_words_are_those_of_the_best_path_and_fill_the_time(pieces: WordPieces) -> None:
    log_probs = path(pieces, "the sea ship", 2)
    words = spelled_words(pieces, log_probs)
    assert [word.text for word in words] == ["the", "sea", "ship"]
    assert [word.end_frame for word in words[:-1]] == [word.start_frame for word in words[1:]]
    assert words[-1].end_frame == 2 * len(log_probs)


def test_silence_spells_nothing(pieces: WordPieces) -> None:
    assert spelled_words(pieces, path(pieces, "", 1)) == []
    blank = np.zeros((4, pieces.vocab_size), dtype=np.float32)
    blank[:, 0] = 1.0
    assert spelled_words(pieces, blank) == []


def test_an_unknown_spelling_replaces_the_words_it_overlaps_and_a_known_one_nothing() -> None:
    found = (TimedWord("the", 0, 4), TimedWord("mean", 5, 8), TimedWord("kin", 9, 13), TimedWord("said", 14, 20))
    spelled = [TimedWord("the", 0, 5), TimedWord("meekin", 5, 14), TimedWord("sad", 14, 22)]
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
    assert expected.near(spelled) == [TimedWord("metternich", 5, 14)]
    assert ExpectedSpellings([]).near(spelled) == []
    assert len(expected.near([spelled[1]] * 20)) == MAX_TRIED
