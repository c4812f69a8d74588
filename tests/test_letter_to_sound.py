"""The letter-to-sound model of a bundle: what it says, and which files are refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from asr_service.errors import BundleError
from asr_service.letter_to_sound import FORMAT, Graphone, LetterToSound

# "c" sounds like K before "a" and like S before "e", which is then mute at the end of a word.
SEGMENTED: list[list[Graphone]] = [
    [("c", ("K",)), ("a", ("AE",)), ("t", ("T",))],
    [("c", ("K",)), ("a", ("AE",)), ("n", ("N",))],
    [("c", ("S",)), ("e", ("EH",)), ("n", ("N",)), ("t", ("T",))],
    [("m", ("M",)), ("i", ("IH",)), ("n", ("N",)), ("c", ("S",)), ("e", ())],
]


@pytest.fixture
def model() -> LetterToSound:
    return LetterToSound.learn(SEGMENTED * 5, order=3)


def test_letters_sound_as_their_neighbours_have_it(model: LetterToSound) -> None:
    assert model.pronounce("can")[0] == ("K", "AE", "N")
    assert model.pronounce("cin") != [] and model.pronounce("tince")[0][-1] == "S"
    assert model.pronounce("czar") == []  # a letter that nothing is known of


def test_pronunciations_come_best_first_and_differ(model: LetterToSound) -> None:
    found = model.pronounce("cant", n_best=3)
    assert found[0] == ("K", "AE", "N", "T") and len(set(found)) == len(found) > 1


def test_a_file_gives_the_same_model_and_the_same_bytes(model: LetterToSound, tmp_path: Path) -> None:
    first, second = tmp_path / "a.json.gz", tmp_path / "b.json.gz"
    model.save(first)
    loaded = LetterToSound.read(first)()
    loaded.save(second)
    assert first.read_bytes() == second.read_bytes()
    for word in ("cat", "mince", "cance", "tin"):
        assert loaded.pronounce(word, n_best=4) == model.pronounce(word, n_best=4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "other"}, "format"),
        ({"order": 99}, "order is 99"),
        ({"order": True}, "order is True"),
        ({"graphones": [["c", "QQ"]]}, "unknown phone"),
        ({"graphones": []}, "no graphones"),
        ({"ngrams": {"ab": 1}}, "n-grams"),
        ({"ngrams": {"abc": 0}}, "count below 1"),
        ({"ngrams": None}, "no letter-to-sound model"),
        ({"ngrams": ["abc"]}, "no letter-to-sound model"),
        ({"graphones": [["c", 3]]}, "no letter-to-sound model"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(
    model: LetterToSound, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    path = tmp_path / "letter_to_sound.json.gz"
    model.save(path)
    content = json.loads(gzip.decompress(path.read_bytes()))
    assert content["format"] == FORMAT
    path.write_bytes(gzip.compress(json.dumps(content | change).encode()))
    with pytest.raises(BundleError, match=told) as caught:
        LetterToSound.read(path)
    assert caught.value.field == "letter_to_sound.json.gz"


@pytest.mark.parametrize(
    "data",
    [b"", b"plain", gzip.compress(b"{"), gzip.compress(b"[]"), gzip.compress(b"{}")[:-4]],
    ids=["nothing", "no gzip", "no JSON", "no object", "cut off"],
)
def test_a_file_that_is_cut_off_or_no_json_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "letter_to_sound.json.gz"
    path.write_bytes(data)
    with pytest.raises(BundleError, match="no letter-to-sound model"):
        LetterToSound.read(path)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr_service.letter_to_sound.MAX_FILE_BYTES", 1000)
    path = tmp_path / "letter_to_sound.json.gz"
    path.write_bytes(gzip.compress(bytes(100_000)))
    with pytest.raises(BundleError, match="more than 1000 bytes"):
        LetterToSound.read(path)


def test_what_a_word_ends_with_counts() -> None:
    inside, alone = [("a", ("AE",)), ("b", ("B",))], [("a", ("EY",))]
    model = LetterToSound.learn([inside] * 3 + [alone] * 2, order=2)
    assert model.pronounce("ab")[0] == ("AE", "B")
    assert model.pronounce("a")[0] == ("EY",)


def test_no_pronunciation_is_silence(model: LetterToSound) -> None:
    assert model.pronounce("e", n_best=9) == [("EH",)]
    assert LetterToSound.learn([[("e", ()), ("h", ("HH",))]], order=2).pronounce("e") == []


def test_what_a_model_remembers_of_the_words_that_it_was_asked_for_is_bounded(
    model: LetterToSound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr_service.letter_to_sound._MAX_CACHED", 20)
    for word in ("cant", "mince", "cance", "tin", "mat", "tent"):
        assert model.pronounce(word)
    assert len(model._cache) <= 21
