"""A word outside the lexicon is paid for once, as soon as it can be none inside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.decoding.spelling import Spelled, Spelling
from asr_service.tokenizer import WORD_START

PIECES = ("<blank>", "<s>", "</s>", "▁", "▁a", "▁ab", "▁b", "a", "b", "ba", "c")
WORDS = ("a", "abba", "bab", "cab")


def place_after(spelling: Spelling, pieces: list[str]) -> Spelled:
    place = Spelled()
    for piece in pieces:
        place = spelling.extended(place, PIECES.index(piece))
    return place


@pytest.mark.parametrize(
    ("pieces", "owed", "owed_at_the_end"),
    [
        ([], 0, 0),
        (["▁a"], 0, 0),
        (["▁ab"], 0, 1),  # abba may come of it, but ab is no word
        (["▁ab", "ba"], 0, 0),
        (["▁b", "b"], 1, 1),  # no word begins with bb
        (["▁b", "b", "c", "c"], 1, 1),
        (["▁b", "b", "▁a"], 1, 1),
        (["▁ab", "▁a"], 1, 1),
        (["▁b", "b", "▁ab", "▁"], 2, 2),
        (["▁", "c", "a", "b"], 0, 0),
    ],
)
def test_what_a_spelling_owes(pieces: list[str], owed: int, owed_at_the_end: int) -> None:
    spelling = Spelling(WORDS, PIECES, unknown=-1.0)
    place = place_after(spelling, pieces)
    assert (place.score, spelling.ended(place)) == (-owed, -owed_at_the_end)


@given(st.lists(st.sampled_from(PIECES[3:]), max_size=12))
def test_in_the_end_every_unknown_word_is_paid_for_once(pieces: list[str]) -> None:
    spelling = Spelling(WORDS, PIECES, unknown=-2.5)
    words = "".join(pieces).replace(WORD_START, " ").split()
    unknown = sum(word not in WORDS for word in words)
    assert spelling.ended(place_after(spelling, pieces)) == -2.5 * unknown
