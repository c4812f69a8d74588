"""The normaliser's specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.evaluation.normalizer import normalize_transcript


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Author of the danger trail, Philip Steels, etc.", "author of the danger trail philip steels etc"),
        ("IT'S A WELL-KNOWN FACT", "it's a well known fact"),
        ("\u2018Tis the dogs\u2019 dinner", "'tis the dogs' dinner"),
        ("he said 'yes' and 'no'", "he said yes and no"),
        ("caf\u00e9 na\u00efve", "cafe naive"),
        ("  many \t spaces\n", "many spaces"),
        ("' '' -- ...", ""),
        ("", ""),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert normalize_transcript(text) == expected


@given(st.text())
def test_the_result_is_letters_apostrophes_and_single_spaces_and_stays_as_it_is(text: str) -> None:
    normal = normalize_transcript(text)
    assert set(normal) <= set("abcdefghijklmnopqrstuvwxyz' ")
    assert normal == normal.strip() and "  " not in normal
    assert normalize_transcript(normal) == normal
