"""Word pieces: every normalised text comes back, and the special tokens lie where the model expects them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.errors import BundleError
from asr_service.tokenizer import BEGIN, BLANK, END, WordPieces

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "don't you think it's time we were going home",
    "she sells sea shells by the sea shore",
    "there's nothing like the sound of the sea at night",
] * 3


@pytest.fixture(scope="module")
def pieces() -> WordPieces:
    return WordPieces.train(TEXTS, 96)


WORDS = st.lists(st.text("abcdefghijklmnopqrstuvwxyz'", min_size=1, max_size=12), max_size=8)


@given(words=WORDS)
def test_normalised_text_comes_back_from_its_tokens(pieces: WordPieces, words: list[str]) -> None:
    text = " ".join(words)
    assert pieces.decode(pieces.encode(text)) == text


@given(words=WORDS)
def test_as_many_tokens_start_a_word_as_there_are_words(pieces: WordPieces, words: list[str]) -> None:
    assert sum(map(pieces.starts_word, pieces.encode(" ".join(words)))) == len(words)


@given(words=WORDS)
def test_text_is_never_encoded_with_a_special_token(pieces: WordPieces, words: list[str]) -> None:
    assert all(token > pieces.eos_id for token in pieces.encode(" ".join(words)))


def test_blank_begin_and_end_come_first_and_give_no_text(pieces: WordPieces) -> None:
    assert pieces.pieces[:3] == (BLANK, BEGIN, END)
    assert (pieces.blank_id, pieces.bos_id, pieces.eos_id) == (0, 1, 2)
    ids = pieces.encode("the sea")
    assert pieces.decode([1, 0, *ids, 0, 2]) == "the sea"


def test_the_vocabulary_has_the_size_asked_for(pieces: WordPieces) -> None:
    assert pieces.vocab_size == len(pieces.pieces) == 96


def test_frequent_words_take_fewer_tokens_than_letters(pieces: WordPieces) -> None:
    assert len(pieces.encode("the sea")) < len("the sea")


def test_characters_outside_the_vocabulary_are_left_out(pieces: WordPieces) -> None:
    assert pieces.decode(pieces.encode("se2a")) == "sea"


def test_a_saved_tokenizer_loads_as_it_was(pieces: WordPieces, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    pieces.save(path)
    assert WordPieces.load(path).pieces == pieces.pieces


@pytest.mark.parametrize("content", ["", "not json", "{}"])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        WordPieces.load(path)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        WordPieces.load(tmp_path / "tokenizer.json")


def test_a_tokenizer_without_our_special_tokens_is_refused(pieces: WordPieces, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    pieces.save(path)
    table = json.loads(path.read_text())
    vocabulary = table["model"]["vocab"]
    vocabulary["<pad>"] = vocabulary.pop(BLANK)
    table["added_tokens"] = []
    path.write_text(json.dumps(table))
    with pytest.raises(BundleError, match="first tokens"):
        WordPieces.load(path)
