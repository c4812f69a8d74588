"""The normaliser's specification."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.errors import ConfigError
from asr_service.evaluation.normalizer import NORMALIZERS, _english, normalize_transcript, normalizer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Author of the danger trail, Philip Steels, etc.", "author of the danger trail philip steels etc"),
        ("IT'S A WELL-KNOWN FACT", "it's a well known fact"),
        ("\u2018Tis the dogs\u2019 dinner", "'tis the dogs' dinner"),
        ("he said 'yes' and 'no'", "he said yes and no"),
        ("caf\u00e9 na\u00efve", "cafe naive"),
        ("don\u02bct, won`t", "don't won't"),
        ("\ufb01ne \uff37\uff29\uff24\uff25", "fine wide"),
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


def test_every_normaliser_has_a_name_and_a_version_in_its_label() -> None:
    assert [normalizer(name).label for name in ("none", "basic", "librispeech")] == [
        "none-1",
        "basic-1",
        "librispeech-2",
    ]
    assert set(NORMALIZERS) == {"none", "basic", "english", "librispeech"}


def test_an_unknown_normaliser_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match="'whisper' is not known: one of none, basic, english, librispeech"):
        normalizer("whisper")


def test_none_keeps_all_but_white_space() -> None:
    assert normalizer("none")("  Caf\u00e9,\tnot \u00a0 cafe!\n") == "Caf\u00e9, not cafe!"


def test_basic_is_what_the_model_learns() -> None:
    assert normalizer("basic")("It's WELL-known.") == normalize_transcript("It's WELL-known.")


def test_librispeech_writes_capitals_and_spells_titles_out() -> None:
    assert (
        normalizer("librispeech")("Mr. and Mrs. Bell's caf\u00e9, Dr. Who, St. Paul's")
        == "MISTER AND MISSUS BELL'S CAFE DOCTOR WHO SAINT PAUL'S"
    )


@pytest.mark.parametrize("name", ["basic", "librispeech"])
def test_what_is_said_but_not_written_by_a_normaliser_is_named(name: str) -> None:
    assert normalizer(name).dropped("Caf\u00e9 - 7 & \u0416, \u201cwell-known\u201d...") == "7&\u0416"
    signs = "&%$\u20ac\u00a3\u00a5@#+=\u00b0\u00a7\u00bd\u00bc\u00be"
    assert normalizer(name).dropped(f"a {signs} b") == signs
    assert normalizer("none").dropped(signs) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Um, I'm twenty-five, Mr. Brown!", "i am 25 mister brown"),
        ("The colour of $20 million", "the color of $20000000"),
        ("[laughter] we won't (cough) go", "we will not go"),
        ("", ""),
    ],
)
def test_english_unites_spellings_numbers_and_contractions(text: str, expected: str) -> None:
    pytest.importorskip("whisper_normalizer")
    assert normalizer("english")(text).strip() == expected


def test_the_label_of_english_has_the_version_of_its_package() -> None:
    pytest.importorskip("whisper_normalizer")
    assert normalizer("english").label == f"english-{importlib.metadata.version('whisper-normalizer')}"


def test_english_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    _english.cache_clear()
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    with pytest.raises(ConfigError, match=r"asr-service\[eval\]"):
        normalizer("english")
