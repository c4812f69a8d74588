"""Texts as they are said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from asr_service.lexicon import MAX_WORD_LETTERS, Lexicon
from tests.decoding import tiny
from training.data import read_manifest
from training.lexicon import own_lexicon, phones_of, word_counts, words_of
from training.lm import text_sentences, transcripts
from training.spoken import TITLES, as_said


@pytest.mark.parametrize(
    ("transcript", "said"),
    [
        ("mr smith and mrs smith saw dr who", "mister smith and missus smith saw doctor who"),
        ("mister", "mister"),
        ("st paul's", "saint paul's"),
        ("the mrs's drs", "the mrs's drs"),
        ("", ""),
    ],
)
def test_titles_are_said_in_full(transcript: str, said: str) -> None:
    assert as_said(transcript) == said
    assert as_said(said) == said


def test_language_models_and_lexicons_read_texts_as_they_are_said(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "books.txt.gz", "wt", encoding="utf-8") as file:
        file.write("Mr. Smith saw Mrs. Smith. Dr. No came!\n")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "MISTER SMITH AND MRS. SMITH", "corpus": "a"}) + "\n")
    heard = " ".join(text_sentences(tmp_path / "books.txt.gz"))
    assert heard == "mister smith saw missus smith doctor no came"
    assert list(transcripts(tmp_path / "rows.jsonl")) == ["mister smith and missus smith"]
    row = {"audio_filepath": "a.wav", "duration": 1.0, "text": "Mr. Smith", "corpus": "a"}
    (tmp_path / "audio.jsonl").write_text(json.dumps(row) + "\n")
    assert read_manifest(tmp_path / "audio.jsonl")[0].text == "mister smith", "what is learnt and measured against"
    assert not set(TITLES) & set(word_counts(["Mr. Smith", "dr. No"]))
    lexicon = Lexicon({"cat": tiny.WORDS["cat"], "mister": [("M", "IH", "S", "T", "ER")]})
    assert phones_of(words_of("Mr. Cat"), lexicon) == ["M", "IH", "S", "T", "ER", "K", "AE", "T"]


def test_the_lexicon_of_a_corpus_has_the_words_that_its_targets_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"mister": (("M", "IH", "S", "T", "ER"),), "mr": (("M", "AA", "R"),), "no": (("N", "OW"),)}
    monkeypatch.setattr("training.lexicon.dictionary", lambda: known)
    lexicon = own_lexicon(["mr no"])
    assert sorted(lexicon) == ["mister", "no"]
    assert capsys.readouterr().out == "2 words\n"
    too_long = "n" * (MAX_WORD_LETTERS + 1)
    own_lexicon([f"mr no {too_long}"])
    assert capsys.readouterr().out == f"2 words, 1 dropped without a pronunciation: {too_long}\n"
    assert phones_of(words_of("Mr. No"), lexicon) == ["M", "IH", "S", "T", "ER", "N", "OW"]
