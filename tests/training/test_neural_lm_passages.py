"""What the neural language model reads: passages that are its text, batches of them, and rows of these."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_service.tokenizer import WordPieces
from training.neural_lm import LONGEST, batches, padded, passages, tokenised
from training.tokenizer import train as train_tokenizer

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
COUNTING = [" ".join(NUMBERS[first : first + 4]) for first in range(7)] * 12
PIECES = train_tokenizer(COUNTING, 48)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 250), min_size=1, max_size=30), st.integers(0, 9))
def test_passages_are_the_text_once_from_beginning_to_end_and_none_is_too_long(lengths: list[int], seed: int) -> None:
    words = [" ".join(["ten"] * length) for length in lengths]
    text = tokenised(words, PIECES)
    cuts = passages(text, random.Random(seed))
    assert [cut[0] for cut in cuts] == [0, *(cut[1] for cut in cuts[:-1])] and cuts[-1][1] == len(text.tokens)
    assert all(0 < end - start <= LONGEST for start, end in cuts)
    assert all(start in text.word_starts for start, _ in cuts), "a passage begins with a word"


def test_a_word_longer_than_a_passage_is_cut_within() -> None:
    text = tokenised(["x x x", "n" * 400], WordPieces.train(["x n"], 31))
    assert passages(text, random.Random(0))[-1][1] == len(text.tokens)


def test_three_in_ten_passages_end_where_no_sentence_does() -> None:
    text = tokenised(COUNTING * 20, PIECES)
    within = [end not in text.sentence_ends for _, end in passages(text, random.Random(0))]
    assert np.mean(within) == pytest.approx(0.3 * 3 / 4, abs=0.05)  # a cut between words is one of a sentence's four


def test_an_epoch_has_every_passage_once_in_batches_of_bounded_size_and_the_next_has_others() -> None:
    text = tokenised(COUNTING, PIECES)
    first, again, second = (list(batches(text, epoch, seed=1, batch_tokens=256)) for epoch in (0, 0, 1))
    assert first == again != second
    assert first != list(batches(text, 0, seed=2, batch_tokens=256))
    for epoch in (first, second):
        cuts = sorted(cut for batch in epoch for cut in batch)
        assert sum(end - start for start, end in cuts) == len(text.tokens)
        assert all(len(batch) * (max(end - start for start, end in batch) + 1) <= 256 for batch in epoch)


def test_rows_begin_with_the_begin_token_and_end_with_the_end_token_and_padding_is_no_target() -> None:
    inputs, targets = padded([np.array([7, 8, 9], dtype=np.uint16), np.array([5], dtype=np.uint16)])
    assert inputs.tolist() == [[WordPieces.bos_id, 7, 8, 9], [WordPieces.bos_id, 5, 0, 0]]
    assert targets.tolist() == [[7, 8, 9, WordPieces.eos_id], [5, WordPieces.eos_id, -100, -100]]
