"""The neural language model: causal, the same once written and read, and refused when it is not whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from asr_service.errors import BundleError, ConfigError
from asr_service.model.neural_lm import (
    NEURAL_LM_FILE,
    NEURAL_LM_TOKENIZER_FILE,
    NeuralLM,
    NeuralLMConfig,
    load_neural_lm,
    save_neural_lm,
)
from asr_service.model.packed import packed
from asr_service.model.precision import Precision
from asr_service.tokenizer import WordPieces
from tests.precisions import PRECISIONS

TEXTS = ["the cat sat on the mat", "a dog and a cat", "it's the dog's mat"]
PIECES = WordPieces.train(TEXTS, 48)


@pytest.fixture
def model() -> NeuralLM:
    torch.manual_seed(0)
    return NeuralLM(NeuralLMConfig(PIECES.vocab_size, 32, 2, 64, 2)).eval().requires_grad_(False)


@pytest.fixture
def folder(tmp_path: Path, model: NeuralLM) -> Path:
    save_neural_lm(tmp_path, model, PIECES)
    return tmp_path


def test_what_follows_a_token_does_not_depend_on_what_comes_later(model: NeuralLM) -> None:
    tokens = torch.randint(3, PIECES.vocab_size, (2, 9))
    changed = tokens.clone()
    changed[:, 5:] = 4
    torch.testing.assert_close(model(tokens)[:, :5], model(changed)[:, :5])
    assert not torch.allclose(model(tokens)[:, 6], model(changed)[:, 6]), "but on what came before"


def test_a_model_that_was_written_and_read_says_the_same(folder: Path, model: NeuralLM) -> None:
    found = load_neural_lm(folder)
    assert found is not None
    tokens = torch.randint(3, PIECES.vocab_size, (1, 12))
    torch.testing.assert_close(found[0](tokens), model(tokens), atol=2e-2, rtol=0)  # fp16 on disk
    assert found[1].pieces == PIECES.pieces
    assert (folder / NEURAL_LM_FILE).stat().st_mode & 0o777 == 0o644
    assert set(load_file(folder / NEURAL_LM_FILE)) == set(model.state_dict()) - {"output.weight"}, "shared weights once"


def test_a_folder_without_one_has_none(tmp_path: Path) -> None:
    assert load_neural_lm(tmp_path) is None


@pytest.mark.parametrize("precision", PRECISIONS)
def test_packed_for_serving_it_says_nearly_the_same(model: NeuralLM, precision: Precision) -> None:
    tokens = torch.randint(3, PIECES.vocab_size, (1, 12))
    tolerance = {"fp32": 1e-4, "bf16": 5e-2}[precision]
    with torch.inference_mode():
        torch.testing.assert_close(packed(model, precision)(tokens), model(tokens), atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("values", "named"),
    [({"layers": 0}, "layers"), ({"d_model": 30, "n_heads": 4}, "n_heads"), ({"ffn_dim": True}, "ffn_dim")],
)
def test_a_shape_that_cannot_be_is_refused_by_name(values: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        NeuralLMConfig(**values)


def damaged(folder: Path, how: str) -> str:
    """Spoil a folder; returns what the error must name."""
    path = folder / NEURAL_LM_FILE
    weights, config = (
        load_file(path),
        {"vocab_size": PIECES.vocab_size, "d_model": 32, "n_heads": 2, "ffn_dim": 64, "layers": 2},
    )
    match how:
        case "cut short":
            path.write_bytes(path.read_bytes()[:1000])
        case "no shape":
            save_file(weights, path)
        case "a shape of other fields":
            save_file(weights, path, {"config": json.dumps(config | {"depth": 3})})
        case "another shape":
            save_file(weights, path, {"config": json.dumps(config | {"layers": 3})})
            return "blocks.2"
        case "not finite":
            weights["final_norm.weight"][0] = torch.nan
            save_file(weights, path, {"config": json.dumps(config)})
        case "another tokenizer":
            WordPieces.train(TEXTS, 40).save(folder / NEURAL_LM_TOKENIZER_FILE)
            return NEURAL_LM_TOKENIZER_FILE
        case "no tokenizer":
            (folder / NEURAL_LM_TOKENIZER_FILE).unlink()
            return NEURAL_LM_TOKENIZER_FILE
    return NEURAL_LM_FILE


@pytest.mark.parametrize(
    "how",
    [
        "cut short",
        "no shape",
        "a shape of other fields",
        "another shape",
        "not finite",
        "another tokenizer",
        "no tokenizer",
    ],
)
def test_files_that_are_not_whole_or_do_not_fit_are_refused_by_name(folder: Path, how: str) -> None:
    named = damaged(folder, how)
    with pytest.raises(BundleError, match=named):
        load_neural_lm(folder)
