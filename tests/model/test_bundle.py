"""A bundle comes back as it was saved, and one that is damaged is refused by the name of the file at fault."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from asr_service.errors import BundleError, ConfigError
from asr_service.features import FeatureConfig
from asr_service.lexicon import PHONE_VOCABULARY_SIZE, Lexicon
from asr_service.model.bundle import StreamingConfig, load_bundle, save_bundle
from asr_service.model.neural_lm import NeuralLM, NeuralLMConfig, save_neural_lm
from asr_service.model.transformer import Transformer
from asr_service.tokenizer import WordPieces
from tests.model.conftest import random_features, tiny_model

PIECES = WordPieces.train(["the sea shells she sells"] * 3, 40)
LEXICON = Lexicon({"sea": [("S", "IY")], "the": [("DH", "AH"), ("DH", "IY")]})


def trained() -> Transformer:
    return tiny_model(vocab_size=PIECES.vocab_size, phone_vocab_size=PHONE_VOCABULARY_SIZE)


def save(directory: Path, *, int8: bool = False) -> Path:
    model = trained()
    save_bundle(
        directory,
        name="tiny",
        weights=model.state_dict(),
        mean=torch.arange(16.0),
        std=torch.full((16,), 2.0),
        model_config=model.config,
        feature_config=FeatureConfig(n_mels=16),
        streaming=StreamingConfig(chunk_frames=8, left_frames=16),
        decoding={"beam": 4},
        pieces=PIECES,
        lexicon=LEXICON,
        int8=int8,
    )
    return directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return save(tmp_path / "model")


def test_a_saved_bundle_computes_what_the_model_did(directory: Path) -> None:
    bundle = load_bundle(directory)
    features, lengths = random_features(60, 33)
    ours, original = bundle.model.encode(features, lengths), trained().encode(features, lengths)
    torch.testing.assert_close(ours.hidden[0], original.hidden[0], rtol=0, atol=0.02)  # weights went through fp16
    assert bundle.name == "tiny"
    assert bundle.streaming == StreamingConfig(8, 16)
    assert bundle.decoding == {"beam": 4}
    assert bundle.pieces.pieces == PIECES.pieces
    assert bundle.lexicon is not None
    assert bundle.lexicon["the"] == LEXICON["the"]
    assert bundle.front_end.mean.tolist() == list(range(16))
    assert not bundle.model.training
    assert (directory / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_bundle_in_int8_is_smaller_and_computes_nearly_the_same(directory: Path, tmp_path: Path) -> None:
    small = save(tmp_path / "small", int8=True)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (small, directory)]
    assert sizes[0] < 0.9 * sizes[1]
    features, lengths = random_features(60, 33)
    ours, original = load_bundle(small).model.encode(features, lengths), trained().encode(features, lengths)
    torch.testing.assert_close(ours.hidden[0], original.hidden[0], rtol=0, atol=0.1)
    tensors = load_file(small / "model.safetensors")
    del tensors["encoder.blocks.0.attention.q_proj.weight.scale"]
    save_file(tensors, small / "model.safetensors")
    with pytest.raises(BundleError, match=r"model\.safetensors: encoder\.blocks\.0\.attention\.q_proj\.weight is int8"):
        load_bundle(small)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "lexicon.txt.gz"])
def test_a_file_that_is_missing_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        load_bundle(directory)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "lexicon.txt.gz"])
@pytest.mark.parametrize("content", [b"", b"no such thing", pickle.dumps({"weights": [1, 2]})])
def test_a_file_of_another_kind_is_named(directory: Path, name: str, content: bytes) -> None:
    (directory / name).write_bytes(content)
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        load_bundle(directory)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere"):
        load_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": 2}, "format"),
        ({"name": None}, "name"),
        ({"streaming": None}, "streaming"),
        ({"streaming": {"chunk_frames": 7}}, "chunk_frames"),
        ({"streaming": {"chunk": 8}}, "chunk"),
        ({"features": {"n_mels": 16, "n_fft": 512, "centre": True}}, "centre"),
        ({"model": {"d_modle": 16}}, "d_modle"),
        ({"model": {"encoder_layers": 2.0}}, "encoder_layers is 2.0, must be a whole number"),
        ({"decoding": []}, "decoding"),
        ({"decoding": {"rescoring": []}}, "rescoring"),
    ],
)
def test_a_wrong_setting_is_named(directory: Path, changes: dict[str, object], named: str) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            del config[key]
        else:
            config[key] = value
    path.write_text(json.dumps(config))
    with pytest.raises(BundleError, match=rf"config\.json.*{named}"):
        load_bundle(directory)


def test_a_tokenizer_of_another_model_is_refused(directory: Path) -> None:
    WordPieces.train(["another text altogether"] * 3, 36).save(directory / "tokenizer.json")
    with pytest.raises(BundleError, match=r"tokenizer\.json has 36 tokens, the model 40"):
        load_bundle(directory)


@pytest.mark.parametrize("fault", ["missing", "shape", "unknown", "nan", "cmvn", "cmvn shape", "cmvn nan", "cmvn zero"])
def test_weights_that_do_not_fit_are_named(directory: Path, fault: str) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    name = "encoder.blocks.0.attention.q_proj.weight"
    if fault == "missing":
        del tensors[name]
    elif fault == "shape":
        tensors[name] = torch.zeros(3, 3)
    elif fault == "unknown":
        tensors["encoder.surprise"] = torch.zeros(1)
    elif fault == "nan":
        tensors[name][0, 0] = float("nan")
    elif fault == "cmvn":
        del tensors["cmvn.std"]
    else:
        tensors["cmvn.std"] = {
            "cmvn shape": torch.ones(3),
            "cmvn nan": torch.full((16,), torch.nan),
            "cmvn zero": torch.zeros(16),
        }[fault]
    save_file(tensors, path)
    named = {"unknown": "encoder.surprise", "nan": "not finite"}.get(fault, "cmvn.std" if "cmvn" in fault else name)
    with pytest.raises(BundleError, match=named.replace(".", r"\.")):
        load_bundle(directory)


def test_a_neural_language_model_must_know_every_letter_that_is_recognised_and_may_know_more(directory: Path) -> None:
    def with_neural_lm(alphabet: str) -> Path:
        pieces = WordPieces.train(["the sea"] * 3, 40, alphabet=alphabet)
        save_neural_lm(directory, NeuralLM(NeuralLMConfig(pieces.vocab_size, 16, 2, 32, 1)), pieces)
        return directory

    assert load_bundle(with_neural_lm(PIECES.characters + "é")).neural_lm is not None
    with pytest.raises(BundleError, match=r"neural_lm_tokenizer\.json lacks 'q', which tokenizer\.json has"):
        load_bundle(with_neural_lm(PIECES.characters.replace("q", "é")))


@pytest.mark.parametrize("frames", [0, 1, 3, -2, 2.0])
def test_streaming_geometry_is_even_frames(frames: float) -> None:
    with pytest.raises(ConfigError, match="chunk_frames"):
        StreamingConfig(chunk_frames=frames)


def with_config(directory: Path, **changes: object) -> Path:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return directory


def test_a_point_of_the_dial_changes_what_it_names_and_nothing_else(directory: Path) -> None:
    dial = {"low": {"streaming": {"chunk_frames": 4}, "decoding": {"beam": 2, "streaming": {"lm_weight": 1.5}}}}
    decoding = {"beam": 4, "streaming": {"lm_weight": 1.0, "beam_size": 9}}
    bundle = load_bundle(with_config(directory, dial=dial, decoding=decoding))
    low = bundle.at("low")
    assert low.streaming == StreamingConfig(4, 16)
    assert low.decoding == {"beam": 2, "streaming": {"lm_weight": 1.5, "beam_size": 9}}
    assert low.model is bundle.model
    assert bundle.at("balanced") is bundle
    assert bundle.decoding == decoding
    with pytest.raises(BundleError, match="no settings for 'accurate' latency; there are balanced, low"):
        bundle.at("accurate")


@pytest.mark.parametrize(
    "dial",
    [
        [],
        {"slow": {}},
        {"low": 3},
        {"low": {"model": {}}},
        {"low": {"streaming": {"chunk_frames": 3}}},
        {"low": {"streaming": {"chunks": 4}}},
        {"low": {"decoding": 3}},
        {"low": {"decoding": []}},
        {"balanced": {"streaming": {"chunk_frames": 4}}},
    ],
)
def test_a_dial_that_is_none_is_refused(directory: Path, dial: object) -> None:
    with pytest.raises(BundleError, match=r"config\.json"):
        load_bundle(with_config(directory, dial=dial))
