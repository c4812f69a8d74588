from __future__ import annotations

import pytest

from asr_service.evaluation.wer import WordErrors, word_errors


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("THE CAT SAT", "the cat sat", WordErrors(0, 0, 0, 3)),
        ("the cat sat", "the hat sat down", WordErrors(1, 0, 1, 3)),
        ("the cat sat", "", WordErrors(0, 3, 0, 3)),
        ("", "two words", WordErrors(0, 0, 2, 0)),
        ("", "", WordErrors()),
        ("Don't, please!", "don't please", WordErrors(0, 0, 0, 2)),
    ],
)
def test_counts(reference: str, hypothesis: str, expected: WordErrors) -> None:
    assert word_errors(reference, hypothesis) == expected


def test_the_corpus_rate_is_errors_over_words_not_a_mean_of_rates() -> None:
    total = WordErrors(1, 0, 0, 1) + WordErrors(0, 0, 0, 9)
    assert total.rate == pytest.approx(0.1)
    assert WordErrors(insertions=1).rate == float("inf")
    assert WordErrors().rate == 0.0
