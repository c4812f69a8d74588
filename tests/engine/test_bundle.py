"""What the engine refuses of a model directory, by name (tests/model/test_bundle.py has what the loader refuses)."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import pytest

from asr_service.config import EngineSettings
from asr_service.engine.load import load_engine
from asr_service.engine.search_space import LETTER_TO_SOUND_FILE, SearchSpace
from asr_service.errors import BundleError
from asr_service.letter_to_sound import LetterToSound
from asr_service.model.bundle import CONFIG_FILE, LM_FILE, WEIGHTS_FILE, Bundle
from asr_service.types import Mode, PhraseHint
from tests.engine.conftest import make_tiny_bundle


@pytest.fixture
def bundle_dir(tiny_bundle_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle_dir, tmp_path / "bundle"))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 4096])
def test_a_language_model_that_is_something_else_is_named(bundle_dir: Path, content: bytes) -> None:
    (bundle_dir / LM_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=LM_FILE):
        load_engine(bundle_dir, settings=EngineSettings())


def test_the_engine_is_loaded_at_the_latency_of_the_settings(bundle_dir: Path) -> None:
    low = EngineSettings(latency="low")
    with pytest.raises(BundleError, match="no settings for 'low' latency"):
        load_engine(bundle_dir, settings=low)
    config = json.loads((bundle_dir / CONFIG_FILE).read_text())
    config["dial"] = {"low": {"streaming": {"chunk_frames": 4}}}
    (bundle_dir / CONFIG_FILE).write_text(json.dumps(config))
    assert load_engine(bundle_dir, settings=low).info.chunk_s == pytest.approx(0.16)


def test_an_n_gram_that_no_search_would_take_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "pieces", phones=False)
    (folder / LM_FILE).write_bytes(b"n-gram")
    with pytest.raises(BundleError, match=rf"{LM_FILE}: of no use to a model without phones"):
        load_engine(folder, settings=EngineSettings())


def test_a_damaged_letter_to_sound_model_is_found_before_anybody_is_served(bundle_dir: Path) -> None:
    (bundle_dir / LETTER_TO_SOUND_FILE).write_bytes(b"hello")
    with pytest.raises(BundleError, match=LETTER_TO_SOUND_FILE):
        load_engine(bundle_dir, settings=EngineSettings())


def test_letters_sound_as_in_the_file_that_was_there_at_the_start(tiny_bundle: Bundle, tmp_path: Path) -> None:
    path, word = tmp_path / LETTER_TO_SOUND_FILE, (PhraseHint("kit", 5.0),)
    LetterToSound.learn([[("t", ("T",)), ("i", ("IH",)), ("k", ("K",))]] * 3, order=2).save(path)
    space = SearchSpace(dataclasses.replace(tiny_bundle, directory=tmp_path))
    path.write_bytes(b"another")
    tree = space.hinted_tree(Mode.STREAMING, word)
    assert tree is not None and {tree.texts(label) for label in tree.boosts} == {("kit",)}


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
