"""Sentences: where they end, and where a dot is only an abbreviation's."""

from __future__ import annotations

import pytest

from training.sentences import sentences


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["He came. She went! Why? Rain; wind\n"], ["he came", "she went", "why", "rain", "wind"]),
        (['"He came." She went.'], ["he came", "she went"]),
        (["He met Mr. Darcy and Dr. Watson. They spoke."], ["he met mr darcy and dr watson", "they spoke"]),
        (["HIS FRIEND MR\n", "JOHNSTONE THOMSON\n", "HE\n"], ["his friend mr johnstone thomson", "he"]),
        (["At St. Paul's. J. R. Smith read."], ["at st paul's", "j r smith read"]),
        (["It is I. He read part A. So?"], ["it is i", "he read part a", "so"]),
        (["the tester", "a drachm", "the last"], ["the tester", "a drachm", "the last"]),
        (["\n", " . \n", "One.", "", "MRS\n"], ["one", "mrs"]),
        (["MRS\n", "\n", "DR\n", "A WORD"], ["mrs dr a word"]),
        ([], []),
    ],
)
def test_a_sentence_ends_where_it_does_and_not_after_an_abbreviation(lines: list[str], expected: list[str]) -> None:
    assert list(sentences(lines)) == expected
