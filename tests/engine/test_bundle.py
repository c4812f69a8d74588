"""A model directory that lacks a file, or has a wrong one, is refused by name."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from asr_service.config import EngineSettings
from asr_service.engine.load import load_engine
from asr_service.errors import BundleError
from asr_service.model.bundle import (
    CONFIG_FILE,
    LEXICON_FILE,
    LM_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Bundle,
    load_bundle,
)


@pytest.fixture
def bundle_dir(tiny_bundle_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle_dir, tmp_path / "bundle"))


def test_a_saved_bundle_comes_back(tiny_bundle: Bundle, bundle_dir: Path) -> None:
    again = load_bundle(bundle_dir)
    for name, tensor in tiny_bundle.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, rtol=0, atol=0)
    assert again.front_end.mean.tolist() == pytest.approx([-8.0] * 80)
    assert not again.model.training
    assert again.decoding == tiny_bundle.decoding


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, LEXICON_FILE])
def test_a_missing_file_is_named(bundle_dir: Path, name: str) -> None:
    (bundle_dir / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(bundle_dir)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere"):
        load_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, LEXICON_FILE, LM_FILE])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 4096])
def test_a_file_that_is_something_else_is_named(bundle_dir: Path, name: str, content: bytes) -> None:
    (bundle_dir / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        load_engine(bundle_dir, settings=EngineSettings())


def test_a_pickle_in_place_of_the_weights_is_never_run(bundle_dir: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "exploded",))

    (bundle_dir / WEIGHTS_FILE).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BundleError, match=WEIGHTS_FILE):
        load_bundle(bundle_dir)
    assert not (tmp_path / "exploded").exists()


def test_weights_of_another_shape_or_not_finite_are_named(bundle_dir: Path) -> None:
    weights = load_file(bundle_dir / WEIGHTS_FILE)
    save_file(weights | {"ctc_head.bias": torch.zeros(3)}, bundle_dir / WEIGHTS_FILE)
    with pytest.raises(BundleError, match=r"ctc_head\.bias"):
        load_bundle(bundle_dir)
    save_file(weights | {"extra": torch.zeros(3)}, bundle_dir / WEIGHTS_FILE)
    with pytest.raises(BundleError, match="extra"):
        load_bundle(bundle_dir)
    save_file(weights | {"ctc_head.bias": weights["ctc_head.bias"] * torch.nan}, bundle_dir / WEIGHTS_FILE)
    with pytest.raises(BundleError, match="not finite"):
        load_bundle(bundle_dir)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("format",), 99, "format"),
        (("model", "vocab_size"), 17, "17"),
        (("model", "colour"), "red", "colour"),
        (("streaming", "chunk_frames"), 7, "chunk_frames"),
        (("decoding", "beams"), 4, "beams"),
        (("decoding", "rescoring"), {"luck": 1.0}, "luck"),
    ],
)
def test_a_wrong_setting_is_named(bundle_dir: Path, path: tuple[str, ...], value: object, named: str) -> None:
    config = json.loads((bundle_dir / CONFIG_FILE).read_text())
    target = config
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    (bundle_dir / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(BundleError, match=named):
        load_engine(bundle_dir, settings=EngineSettings())
