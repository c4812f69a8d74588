"""What fine-tuning learns from and how it chooses: texts, tokenizer, lexicon, the mix of old and new, the best look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr_service.lexicon import Lexicon
from asr_service.tokenizer import Normalization, WordPieces
from tests.engine.conftest import WORDS
from training.data import Utterance, read_manifest
from training.finetune_data import check_texts, check_tokenizer, extended_lexicon, mix, short_enough, unwritable
from training.finetune_looks import Look, Looks, evenly
from training.lexicon import Pronouncer, phones_of, words_of


@pytest.fixture(scope="module")
def pieces() -> WordPieces:
    return WordPieces.train(sorted(WORDS) * 3, 40)


def test_a_tokenizer_of_another_size_is_refused_and_the_own_one_is_not(pieces: WordPieces) -> None:
    check_tokenizer(pieces, pieces, Path("tokenizer.json"))
    with pytest.raises(ValueError, match=r"a tokenizer of 36 pieces, the bundle's has 40"):
        check_tokenizer(pieces, WordPieces.train(sorted(WORDS) * 3, 36), Path("tokenizer.json"))


def test_a_tokenizer_of_texts_by_other_rules_is_refused(pieces: WordPieces) -> None:
    other = WordPieces.train(sorted(WORDS) * 3, 40)
    other.normalization = Normalization("nfc", "1")
    with pytest.raises(ValueError, match=r"for texts by .*nfc"):
        check_tokenizer(pieces, other, Path("tokenizer.json"))


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("Well-known “quotes”, don't; \tyes…", ""),
        ("café ŒUVRE", "Œ"),
        ("route 66", "66"),
        ("50% @home", "50%@"),
        ("§ 12 and/or 3°", "§123°"),
        ("straße Ελ", "ßΕλ"),
        ("\u2019tis o\u02bcclock", ""),
        ("", ""),
    ],
)
def test_characters_whose_sound_would_be_lost_are_found(pieces: WordPieces, text: str, lost: str) -> None:
    assert "".join(unwritable(text, pieces)) == lost


def test_a_letter_that_the_tokenizer_lacks_is_found(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    WordPieces.train(["ab"], 31).save(path)
    table = json.loads(path.read_text())
    table["model"]["vocab"] = {{"z": "0"}.get(piece, piece): place for piece, place in table["model"]["vocab"].items()}
    path.write_text(json.dumps(table))
    assert unwritable("a zebra's", WordPieces.load(path)) == ["z"]


def test_texts_that_cannot_be_written_are_refused_by_name_or_left_out(
    pieces: WordPieces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["room 7", "tick", "7 & 7"]
    rows = [{"audio_filepath": f"{n}.wav", "duration": 1.0, "text": text} for n, text in enumerate(texts)]
    manifest = tmp_path / "new.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    utterances = read_manifest(manifest)
    with pytest.raises(ValueError, match=r"new\.jsonl: 2 of 3 texts .*'7' \(U\+0037\) 3×, '&' \(U\+0026\) 1×"):
        check_texts(manifest, utterances, pieces, drop=False)
    assert check_texts(manifest, utterances, pieces, drop=True) == [utterances[1]]
    assert "2 of 3" in capsys.readouterr().out


def test_utterances_that_are_too_long_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    utterances = [*utterances_of("a", 2, 3.0), *utterances_of("b", 1, 40.5)]
    assert short_enough("new.jsonl", utterances, 36.0) == utterances[:2]
    assert capsys.readouterr().out == (
        "new.jsonl: 1 of 3 utterances are longer than data.max_utterance_s (36); left out\n"
    )


def utterances_of(corpus: str, count: int, seconds: float) -> list[Utterance]:
    return [Utterance(Path(f"{corpus}{n}.wav"), seconds, "a", "", corpus) for n in range(count)]


@pytest.mark.parametrize(("share", "run_s"), [(0.3, 400.0), (0.5, 90.0), (0.0, 300.0)])
def test_the_share_of_old_seconds_is_what_was_asked(share: float, run_s: float) -> None:
    target, old = utterances_of("new", 10, 3.0), utterances_of("old", 300, 2.0)
    mixed = mix(target, old, share=share, run_s=run_s, seed=1)
    assert mixed.share(30.0) == pytest.approx(share, abs=0.03)
    assert mixed.passes * 30.0 + 2.0 * len(mixed.old) >= run_s  # no old utterance comes again in the run
    assert len({utterance.path for utterance in mixed.old}) == len(mixed.old)


def test_too_little_old_data_keeps_the_share_by_shorter_epochs_or_is_all_taken() -> None:
    target = utterances_of("new", 10, 3.0)
    shorter = mix(target, utterances_of("old", 50, 2.0), share=0.5, run_s=1e6, seed=1)
    assert shorter.passes == 3
    assert shorter.share(30.0) == pytest.approx(0.5, abs=0.02)
    all_of_it = mix(target, utterances_of("old", 5, 2.0), share=0.5, run_s=1e6, seed=1)
    assert (all_of_it.passes, len(all_of_it.old)) == (1, 5)


def test_a_target_utterance_is_never_mixed_in_as_old_data() -> None:
    target = utterances_of("new", 4, 3.0)
    mixed = mix(target, [*target, *utterances_of("old", 9, 3.0)], share=0.5, run_s=24.0, seed=1)
    assert {utterance.corpus for utterance in mixed.old} == {"old"}


def test_words_that_the_lexicon_lacks_are_added_with_their_pronunciation() -> None:
    lexicon = Lexicon({"baa": (("B", "AA"),)})
    extra = Lexicon({"baa": (("B", "AE"),), "acme": (("AE", "K", "M", "IY"),)})
    pronouncer = Pronouncer({"zig": (("Z", "IH", "G"),)})
    extended, new = extended_lexicon(lexicon, extra, ["baa zig", "zig's acme"], pronouncer)
    assert new == ["acme", "zig", "zig's"]
    assert extended["zig's"] == (("Z", "IH", "G", "Z"),)
    assert extended["baa"] == (("B", "AE"),)  # what the user says goes before


def test_titles_that_a_target_writes_short_are_added_as_they_are_said() -> None:
    mister = {"mister": (("M", "IH", "S", "T", "ER"),)}
    extended, new = extended_lexicon(Lexicon({"baa": (("B", "AA"),)}), None, ["mr baa"], Pronouncer(mister))
    assert new == ["mister"]
    assert phones_of(words_of("mr baa"), extended) == ["M", "IH", "S", "T", "ER", "B", "AA"]


def test_the_best_look_is_the_lowest_on_the_target_that_has_not_forgotten(tmp_path: Path) -> None:
    looks = Looks(tmp_path / "looks.json", limit=0.02)
    for look in (Look(0, 0.9, 0.30), Look(10, 0.5, 0.31), Look(20, 0.2, 0.33), Look(30, 0.4, 0.32), Look(40, 0.4, 0.3)):
        looks.add(look)
    looks.save()
    assert [look.step for look in looks.looks if looks.has_forgotten(look)] == [20]
    assert looks.best == Look(30, 0.4, 0.32)
    assert Looks(tmp_path / "looks.json", limit=0.02).best == looks.best


def test_utterances_of_a_look_are_spread_over_the_set() -> None:
    assert evenly(range(10), 5) == [0, 2, 4, 6, 8]
    assert evenly(range(3), 5) == evenly(range(3), 0) == [0, 1, 2]


def test_a_tokenizer_that_splits_words_another_way_is_refused(pieces: WordPieces, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    pieces.save(path)
    table = json.loads(path.read_text())
    table["model"]["merges"].pop()
    path.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=r"has the bundle's pieces, but splits '\w+' another way"):
        check_tokenizer(pieces, WordPieces.load(path), path)


def test_old_data_are_drawn_from_all_there_are_and_by_the_seed() -> None:
    target, old = utterances_of("new", 4, 3.0), utterances_of("old", 90, 3.0)
    first, again, other = (mix(target, old, share=0.5, run_s=24.0, seed=seed).old for seed in (1, 1, 2))
    assert first == again != other
    assert not {*first} <= {*old[:45]}
