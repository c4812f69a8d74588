"""Weights to start from: taken whole, or refused with what does not fit."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from asr_service.tokenizer import WordPieces
from tests.training.conftest import MODEL, WORDS, Corpus
from training.export import main as export
from training.initial import read_initial, take_tokenizer


@pytest.fixture(scope="module")
def run(corpus: Corpus) -> Path:
    trainer = corpus.trainer("initial")
    trainer.run(dev=[], evaluate_every=100, save_every_s=1e9)
    corpus.pieces.save(corpus.folder / "initial" / "tokenizer.json")
    return corpus.folder / "initial"


def test_a_bundle_and_its_checkpoint_give_the_same_weights_statistics_and_tokenizer(run: Path, tmp_path: Path) -> None:
    export(["--run", str(run), "--out", str(tmp_path / "bundle")])
    bundle, checkpoint = read_initial(tmp_path / "bundle"), read_initial(run / "step-0000006.pt")
    assert bundle.model_config == checkpoint.model_config == MODEL
    for name, value in checkpoint.weights.items():
        torch.testing.assert_close(bundle.weights[name], value, rtol=1e-3, atol=1e-4)
    assert torch.equal(bundle.mean, checkpoint.mean)
    assert torch.equal(bundle.std, checkpoint.std)
    for number, initial in enumerate((bundle, checkpoint)):
        take_tokenizer(initial, MODEL, tmp_path / f"{number}.json")
        assert WordPieces.load(tmp_path / f"{number}.json").pieces == WordPieces.load(run / "tokenizer.json").pieces


def test_a_model_of_another_shape_is_refused_with_every_difference(run: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(MODEL, d_model=32, conv_kernel=5)
    with pytest.raises(ValueError, match="d_model is 32 in the recipe, 16 there; conv_kernel is 5 in the recipe, 3 th"):
        take_tokenizer(read_initial(run / "step-0000006.pt"), other, tmp_path / "tokenizer.json")
    assert not (tmp_path / "tokenizer.json").exists()


def test_another_dropout_is_not_another_shape(run: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(MODEL, dropout=0.3)
    take_tokenizer(read_initial(run / "step-0000006.pt"), other, tmp_path / "tokenizer.json")


def test_another_tokenizer_is_refused_with_the_first_token_that_differs(run: Path, tmp_path: Path) -> None:
    WordPieces.train([word[::-1] for word in WORDS], MODEL.vocab_size).save(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=r"its tokenizer is not that of .*: token \d+ is '.*' here, '.*' there"):
        take_tokenizer(read_initial(run / "step-0000006.pt"), MODEL, tmp_path / "tokenizer.json")


def test_what_is_neither_bundle_nor_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing: neither a bundle's directory nor a checkpoint"):
        read_initial(tmp_path / "nothing")


def test_a_checkpoint_of_the_best_has_the_tokenizer_of_its_run_and_without_one_is_refused(
    run: Path, tmp_path: Path
) -> None:
    best = tmp_path / "best" / "step-0000006-dev-1.000000.pt"
    best.parent.mkdir()
    shutil.copyfile(run / "step-0000006.pt", best)
    with pytest.raises(ValueError, match=r"1\.000000\.pt: the run's tokenizer\.json is missing beside it"):
        read_initial(best)
    shutil.copyfile(run / "tokenizer.json", tmp_path / "tokenizer.json")
    assert read_initial(best).tokenizer == tmp_path / "tokenizer.json"
