"""What the engine refuses of a model directory, by name (tests/model/test_bundle.py has what the loader refuses)."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

from asr_service.config import EngineSettings
from asr_service.engine.load import load_engine
from asr_service.errors import BundleError
from asr_service.model.bundle import CONFIG_FILE, LM_FILE, WEIGHTS_FILE


@pytest.fixture
def bundle_dir(tiny_bundle_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle_dir, tmp_path / "bundle"))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 4096])
def test_a_language_model_that_is_something_else_is_named(bundle_dir: Path, content: bytes) -> None:
    (bundle_dir / LM_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=LM_FILE):
        load_engine(bundle_dir, settings=EngineSettings())


def test_a_pickle_in_place_of_the_weights_is_never_run(bundle_dir: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "exploded",))

    (bundle_dir / WEIGHTS_FILE).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BundleError, match=WEIGHTS_FILE):
        load_engine(bundle_dir, settings=EngineSettings())
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("beams", 4, "beams"),
        ("rescoring", {"luck": 1.0}, "luck"),
        ("accurate", {"beam_size": 0}, "beam_size"),
        ("n_best", 0, "n_best"),
        ("n_best", True, "n_best"),
        ("n_best", 2.5, "n_best"),
        ("confidence_scale", True, "confidence_scale"),
        ("agreement", "often", "agreement"),
    ],
)
def test_a_wrong_search_setting_is_named(bundle_dir: Path, name: str, value: object, named: str) -> None:
    config = json.loads((bundle_dir / CONFIG_FILE).read_text())
    config["decoding"][name] = value
    (bundle_dir / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(BundleError, match=named):
        load_engine(bundle_dir, settings=EngineSettings())
