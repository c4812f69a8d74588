"""Word pieces: every normalised text comes back, and the special tokens lie where the model expects them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.errors import BundleError
from asr_service.tokenizer import (
    BEGIN,
    BLANK,
    BYTES,
    END,
    LETTERS,
    Detokenizer,
    Normalization,
    UnknownCharacters,
    WordPieces,
)

SHIPPED = Path(__file__).parents[1] / "asr_service" / "models" / "en-s"

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "don't you think it's time we were going home",
    "she sells sea shells by the sea shore",
    "there's nothing like the sound of the sea at night",
] * 3


@pytest.fixture(scope="module")
def pieces() -> WordPieces:
    return WordPieces.train(TEXTS, 96)


@pytest.fixture(scope="module")
def spelling() -> WordPieces:
    return WordPieces.train(TEXTS, 340, byte_fallback=True, alphabet=LETTERS, normalization=Normalization("nfc", "1"))


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


def test_characters_outside_the_vocabulary_are_refused_with_their_counts(pieces: WordPieces) -> None:
    with pytest.raises(
        UnknownCharacters, match=r"3 characters that the vocabulary lacks: '2' \(U\+0032\), 'é'"
    ) as error:
        pieces.encode("se2a 2 é")
    assert error.value.counts == {"2": 2, "é": 1}
    assert pieces.unknown_characters("sea") == {}


@pytest.mark.parametrize("text", [BLANK, BEGIN, END])
def test_a_special_token_spelled_in_a_text_is_text(pieces: WordPieces, spelling: WordPieces, text: str) -> None:
    with pytest.raises(UnknownCharacters):
        pieces.encode(text)
    assert min(spelling.encode(text)) > spelling.eos_id
    assert spelling.decode(spelling.encode(text)) == text


def test_the_word_start_is_no_character_of_a_text(pieces: WordPieces, spelling: WordPieces) -> None:
    for vocabulary in (pieces, spelling):
        with pytest.raises(UnknownCharacters, match="U\\+2581"):
            vocabulary.encode("the ▁ sea")


def any_text() -> st.SearchStrategy[str]:
    return st.text(max_size=40).map(lambda text: " ".join(text.replace("▁", " ").split()))


@given(text=any_text())
def test_with_byte_fall_back_every_text_comes_back(spelling: WordPieces, text: str) -> None:
    ids = spelling.encode(text)
    assert spelling.decode(ids) == text
    assert sum(map(spelling.starts_word, ids)) == len(text.split(" ") if text else [])


def test_a_character_without_a_piece_is_its_utf8(spelling: WordPieces) -> None:
    assert [spelling.byte_of(token) for token in spelling.encode("é")][1:] == list("é".encode())
    assert spelling.unknown_characters("sé") == {"é": 1}
    assert spelling.byte_of(2) is None
    assert (spelling.byte_of(3), spelling.byte_of(258), spelling.byte_of(259)) == (0, 255, None)


@given(data=st.data())
def test_tokens_as_they_come_never_show_half_a_character(spelling: WordPieces, data: st.DataObject) -> None:
    text = data.draw(any_text())
    detokenizer = Detokenizer(spelling)
    shown = ""
    for token in spelling.encode(text):
        shown += detokenizer.push(token)
        assert text.startswith(shown)
    assert shown + detokenizer.finish() == text


@given(data=st.data())
def test_any_tokens_give_the_same_text_at_once_and_one_by_one(spelling: WordPieces, data: st.DataObject) -> None:
    ids = data.draw(
        st.lists(st.integers(0, spelling.vocab_size - 1) | st.sampled_from([0, 3 + 0xC3, 3 + 0xA9, 3 + 0x20]))
    )
    detokenizer = Detokenizer(spelling)
    for _ in range(2):  # after its end it begins anew
        parts = [*map(detokenizer.push, ids), detokenizer.finish()]
        assert "".join(parts) == spelling.decode(ids)
    runs: list[bytes | str] = []
    for token in (token for token in ids if token > spelling.eos_id):
        byte = spelling.byte_of(token)
        if byte is None:
            runs.append(spelling.pieces[token].replace("▁", " "))
        elif runs and isinstance(runs[-1], bytes):
            runs[-1] += bytes([byte])
        else:
            runs.append(bytes([byte]))
    whole = "".join(run if isinstance(run, str) else run.decode(errors="replace") for run in runs)
    assert spelling.decode(ids) == whole.strip()


def test_half_a_character_at_the_end_is_the_replacement_character(spelling: WordPieces) -> None:
    first, second = (3 + byte for byte in "é".encode())
    assert spelling.decode([first, second]) == "é"
    assert spelling.decode([first, 0, second]) == "é"
    assert spelling.decode([first]) == "�"
    assert spelling.decode([first, *spelling.encode("sea")]) == "� sea"


def test_bytes_count_into_the_size_of_the_vocabulary(spelling: WordPieces) -> None:
    assert spelling.has_bytes
    assert spelling.vocab_size == 340
    assert spelling.pieces[:3] == (BLANK, BEGIN, END)
    assert spelling.pieces[3:259] == BYTES
    assert len(spelling.encode("the sea")) < len("the sea")


@pytest.mark.parametrize(("size", "byte_fallback"), [(30, False), (0, False), (286, True)])
def test_a_vocabulary_that_cannot_hold_its_characters_is_refused(size: int, byte_fallback: bool) -> None:
    with pytest.raises(ValueError, match="too small: its single characters need"):
        WordPieces.train(TEXTS, size, byte_fallback=byte_fallback)


def test_a_text_that_spells_a_byte_token_is_refused() -> None:
    with pytest.raises(ValueError, match="<0x41>"):
        WordPieces.train(["a<0x41>b<0x41>c<0x41>"] * 9, 400, byte_fallback=True)


def test_characters_outside_the_alphabet_get_no_piece() -> None:
    vocabulary = WordPieces.train(["the café ^ of"] * 9, 400, byte_fallback=True, alphabet=LETTERS + "^")
    assert not any("é" in piece for piece in vocabulary.pieces)
    assert "^" in vocabulary.pieces
    assert vocabulary.decode(vocabulary.encode("café ^")) == "café ^"


def test_the_shipped_vocabulary_keeps_its_tokens(tmp_path: Path) -> None:
    shipped = SHIPPED / "tokenizer.json"
    pieces = WordPieces.load(shipped)
    assert (pieces.vocab_size, pieces.has_bytes, pieces.normalization) == (256, False, None)
    assert pieces.encode("hello don't") == [60, 69, 18, 58, 56, 3, 23]
    pieces.save(tmp_path / "tokenizer.json")
    assert (tmp_path / "tokenizer.json").read_bytes() == shipped.read_bytes()


def test_the_rules_of_normalisation_are_kept_in_the_file(spelling: WordPieces, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    spelling.save(path)
    loaded = WordPieces.load(path)
    assert loaded.normalization == Normalization("nfc", "1")
    assert loaded.pieces == spelling.pieces
    assert loaded.encode("thé sea") == spelling.encode("thé sea")


@pytest.mark.parametrize(
    "recorded", [{"name": "nfc"}, {"name": "nfc", "version": 1}, {"name": "a", "version": "1", "x": ""}]
)
def test_rules_that_are_not_named_as_they_should_be_are_refused(
    spelling: WordPieces, tmp_path: Path, recorded: dict[str, object]
) -> None:
    path = tmp_path / "tokenizer.json"
    spelling.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalization": recorded}))
    with pytest.raises(BundleError, match="name and a version"):
        WordPieces.load(path)


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
