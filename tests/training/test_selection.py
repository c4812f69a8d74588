"""Which utterances a recipe trains on, and which measure it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_service.evaluation.normalizer import normalize_transcript
from training.data import Utterance
from training.importers.librispeech import read_librispeech
from training.inspection import Inspector
from training.lm import transcripts
from training.prepare import manifest_row
from training.recipe import DataConfig, load_recipe
from training.selection import dev_store, dev_utterances, spelled_out, training_store, training_utterances
from training.tokenizer import raw_texts


@pytest.fixture
def speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two speakers' recordings 0 to 11 of a digit, and an utterance of another corpus."""
    rows = [(f"{who}_{take}.opus", who, "digits") for who in ("ann", "bob") for take in range(12)]
    rows.append(("book.opus", "cid", "books"))
    manifest = tmp_path / "train.jsonl"
    with manifest.open("w") as file:
        for path, speaker, corpus in rows:
            row = {"audio_filepath": path, "duration": 1.0, "text": "one", "speaker": speaker, "corpus": corpus}
            file.write(json.dumps(row) + "\n")
    monkeypatch.setenv("ASR_SPEECH_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("speech")
def test_a_pattern_splits_one_manifest_into_training_and_dev() -> None:
    data = DataConfig(
        corpora=("digits",),
        path_pattern=r"_1\d\.opus$",
        dev_manifest="train.jsonl",
        dev_corpora=("digits",),
        dev_path_pattern=r"_[5-9]\.opus$",
    )
    training = {utterance.path.stem for utterance in training_utterances(data)}
    dev = {utterance.path.stem for utterance in dev_utterances(data)}
    assert training == {"ann_10", "ann_11", "bob_10", "bob_11"}
    assert dev == {f"{who}_{take}" for who in ("ann", "bob") for take in range(5, 10)}


@pytest.mark.usefixtures("speech")
def test_without_a_choice_all_corpora_train_but_those_excluded() -> None:
    assert len(training_utterances(DataConfig())) == 25
    assert [u.corpus for u in training_utterances(DataConfig(exclude_corpora=("digits",)))] == ["books"]


def test_excluded_corpora_that_the_manifest_lacks_are_named(speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By all that exclude: a recipe, a tokenizer's texts and a language model's."""
    manifest, excluded = speech / "train.jsonl", ("digits", "diggits", "letters")
    assert len(training_utterances(DataConfig(exclude_corpora=excluded))) == 1
    assert len(list(raw_texts([manifest], [], excluded))) == 1
    assert len(list(transcripts(manifest, exclude=excluded))) == 1
    assert capsys.readouterr().err.splitlines() == [f"{manifest}: no utterance of diggits, letters to exclude"] * 3
    training_utterances(DataConfig(exclude_corpora=("digits",)))
    assert capsys.readouterr().err == ""


def test_a_choice_that_leaves_nothing_is_an_error_that_names_it(speech: Path) -> None:
    for data, told in (
        (DataConfig(corpora=("letters",)), "no utterance of the corpus letters; it has books, digits"),
        (DataConfig(path_pattern="nobody"), "no utterance matches 'nobody'; it has books, digits"),
        (DataConfig(corpora=("digits", "boks")), "no utterance of the corpus boks; it has books, digits"),
        (
            DataConfig(corpora=("digits", "books"), exclude_corpora=("books", "digits")),
            "no utterance of the corpora digits, books but excluded ones; it has books, digits",
        ),
    ):
        with pytest.raises(ValueError, match=f"{re.escape(f'{speech}/train.jsonl: {told}')}$"):
            training_utterances(data)


def test_the_error_says_that_the_folder_is_the_default_and_names_some_of_many_corpora(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"audio_filepath": "a.wav", "duration": 1.0, "text": "one", "corpus": f"c{n:02d}"} for n in range(11)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.delenv("ASR_SPEECH_DIR", raising=False)
    monkeypatch.setattr("training.selection.speech_dir", lambda: tmp_path)
    own = DataConfig(corpora=("own",))
    some = "no utterance of the corpus own; it has c00, c01, c02, c03, c04, c05, c06, c07, 3 more"
    with pytest.raises(
        ValueError, match=f"{re.escape(str(tmp_path))}/train.jsonl \\(ASR_SPEECH_DIR is not set\\): {some}$"
    ):
        training_utterances(own)


def test_two_selections_never_share_decoded_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_SPEECH_DIR", str(tmp_path / "speech"))
    runs = Path("runs")
    choices = [
        DataConfig(),
        DataConfig(corpora=("an4",)),
        DataConfig(corpora=("an4",), path_pattern="a"),
        DataConfig(corpora=("an4",), path_pattern="b"),
        DataConfig(exclude_corpora=("an4",)),
        DataConfig(manifest="a/train.jsonl"),
        DataConfig(manifest="b/train.jsonl"),
    ]
    stores = {training_store(runs, data) for data in choices}
    assert len(stores) == len(choices)
    same = DataConfig(manifest=str(tmp_path / "speech" / "a" / ".." / "train.jsonl"))
    assert training_store(runs, same) == training_store(runs, DataConfig())
    assert dev_store(runs, DataConfig()).match("runs/pcm/dev-????????")
    monkeypatch.setenv("ASR_SPEECH_DIR", str(tmp_path / "other"))
    assert not stores & {training_store(runs, data) for data in choices}


def test_the_digits_recipe_keeps_recordings_5_to_9_for_dev() -> None:
    data = load_recipe(Path(__file__).parents[2] / "training" / "recipes" / "digits.toml").data
    for take in range(50):
        path = f"fsdd_8k/theo-7_theo_{take}.opus"
        assert bool(re.search(data.path_pattern, path)) == (take >= 10)
        assert bool(re.search(data.dev_path_pattern, path)) == (5 <= take <= 9)


def test_of_all_librispeech_the_large_recipe_trains_on_train_and_looks_at_dev(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = ("train-clean-100", "train-clean-360", "train-other-500")
    parts += ("dev-clean", "dev-other", "test-clean", "test-other")
    for part in parts:
        chapter = tmp_path / "LibriSpeech" / part / "1" / "2"
        chapter.mkdir(parents=True)
        soundfile.write(chapter / f"1-2-{part}.flac", np.zeros(1_600), 16_000)
        (chapter / "1-2.trans.txt").write_text(f"1-2-{part} ONE\n")
    data = load_recipe(Path(__file__).parents[2] / "training" / "recipes" / "libri-960.toml").data
    rows = [manifest_row(Inspector()(record), tmp_path) for record in read_librispeech(tmp_path / "LibriSpeech")]
    (tmp_path / data.manifest).write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("ASR_SPEECH_DIR", str(tmp_path))
    assert sorted(utterance.corpus for utterance in training_utterances(data)) == sorted(parts[:3])
    assert sorted(utterance.corpus for utterance in dev_utterances(data)) == ["dev-clean", "dev-other"]


def test_a_store_of_many_corpora_has_a_name_that_file_systems_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASR_SPEECH_DIR", str(tmp_path))
    many = [tuple(f"corpus_of_a_site_with_number_{n}" for n in range(first, first + 13)) for first in (0, 1)]
    stores = {training_store(tmp_path, DataConfig(corpora=corpora)) for corpora in many}
    assert len(stores) == 2
    for store in stores:
        store.mkdir(parents=True)


def test_texts_that_are_not_spelled_out_measure_nothing_and_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["In 1984", "well-known", "", "naïve, isn't it?", "R&D"]
    utterances = [
        Utterance(Path(f"{n}.wav"), 1.0, normalize_transcript(text), "", "", written=text)
        for n, text in enumerate(texts)
    ]
    assert spelled_out("dev.jsonl", utterances, [0, 1, 3, 4]) == [1, 3]
    assert capsys.readouterr().out == "dev.jsonl: 2 of 4 texts are not spelled out (digits, signs); left out\n"
    assert spelled_out("dev.jsonl", utterances, [1, 2]) == [1, 2]
    assert capsys.readouterr().out == ""
    for rows in ([0, 2], [4], []):
        with pytest.raises(ValueError, match=r"dev\.jsonl: no text with words that are spelled out"):
            spelled_out("dev.jsonl", utterances, rows)
