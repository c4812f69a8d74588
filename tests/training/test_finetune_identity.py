"""A folder's fine-tuning run goes on only by the recipe, the base and the language model that it was begun with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from asr_service.model.bundle import CARD_FILE, LEXICON_FILE, LM_FILE, Bundle, load_bundle
from tests.engine.conftest import make_tiny_bundle
from training.finetune_config import FinetuneConfig
from training.finetune_identity import identity, is_same, keep_identity
from training.recipe import DataConfig, OptimConfig, Recipe

RECIPE = Recipe("mine", finetune=FinetuneConfig())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("base") / "tiny"))


@pytest.fixture
def folder(base: Bundle, tmp_path: Path) -> Path:
    """Of a run by `RECIPE` that has learnt something."""
    keep_identity(tmp_path, identity(RECIPE, base, base.lm_path))
    (tmp_path / "step-0000002.pt").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        (dataclasses.replace(RECIPE, data=DataConfig(manifest="b.jsonl")), "data.manifest was 'train.jsonl', is 'b"),
        (dataclasses.replace(RECIPE, optim=OptimConfig(lr=0.5, max_steps=9)), "optim.lr was .*; optim.max_steps was"),
        (dataclasses.replace(RECIPE, finetune=FinetuneConfig(rank=3)), "finetune.rank was 8, is 3"),
        (dataclasses.replace(RECIPE, finetune=FinetuneConfig(look_every=9)), "finetune.look_every was 100, is 9"),
    ],
)
def test_another_recipe_is_refused_with_what_differs(base: Bundle, folder: Path, recipe: Recipe, named: str) -> None:
    with pytest.raises(ValueError, match=f"holds another run: {named}"):
        is_same(folder, identity(recipe, base, base.lm_path))


def test_another_base_or_language_model_is_refused(base: Bundle, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / LM_FILE
    other.write_bytes(b"another")
    for lm in (other, None):
        with pytest.raises(ValueError, match="holds another run: SHA-256 of the language model was"):
            is_same(folder, identity(RECIPE, base, lm))
    now = identity(RECIPE, base, base.lm_path) | {"SHA-256 of the base's weights": "0"}
    with pytest.raises(ValueError, match="holds another run: SHA-256 of the base's weights was"):
        is_same(folder, now)


def test_what_decides_over_nothing_that_was_learnt_may_change(base: Bundle, folder: Path) -> None:
    data, finetune = DataConfig(prefetch=4), FinetuneConfig(on_forgetting="stop")
    renamed = Recipe("renamed", dtype="float32", data=data, finetune=finetune)
    assert is_same(folder, identity(renamed, base, base.lm_path))


def test_settings_that_are_new_in_the_code_stood_at_their_defaults(base: Bundle, folder: Path) -> None:
    now = identity(RECIPE, base, base.lm_path)
    new = ("loss.consistency", "augment.speeds", "finetune.rank")
    digest = "SHA-256 of the language model"
    keep_identity(folder, {name: value for name, value in now.items() if name not in new})
    assert is_same(folder, now)
    other = dataclasses.replace(RECIPE, finetune=FinetuneConfig(rank=3))
    with pytest.raises(ValueError, match=r"holds another run: finetune.rank was 8, is 3\. Move"):
        is_same(folder, identity(other, base, base.lm_path))
    keep_identity(folder, {name: value for name, value in now.items() if name != digest})
    with pytest.raises(ValueError, match=f"holds another run: {digest} was None"):
        is_same(folder, now)


def test_a_run_that_has_learnt_nothing_yet_may_be_begun_by_another_recipe(base: Bundle, folder: Path) -> None:
    (folder / "step-0000002.pt").unlink()
    assert not is_same(folder, identity(RECIPE, base, None))


def test_a_folder_of_some_other_kind_of_run_is_refused(base: Bundle, tmp_path: Path) -> None:
    (tmp_path / "step-0000002.pt").touch()
    with pytest.raises(ValueError, match=r"holds another run: it has no identity\.json"):
        is_same(tmp_path, identity(RECIPE, base, base.lm_path))


@pytest.mark.parametrize("manifest", ["dev.jsonl", "old.jsonl"])
def test_another_dev_set_under_the_same_name_is_refused(
    base: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: str
) -> None:
    monkeypatch.setenv("ASR_SPEECH_DIR", str(tmp_path))
    recipe = Recipe("mine", finetune=FinetuneConfig(old_dev_manifest="old.jsonl"))
    keep_identity(tmp_path, identity(recipe, base, None))
    (tmp_path / "step-0000002.pt").touch()
    (tmp_path / manifest).write_text("{}")
    with pytest.raises(ValueError, match=f"holds another run: SHA-256 of {manifest} was None"):
        is_same(tmp_path, identity(recipe, base, None))


def test_a_base_that_searches_otherwise_is_refused_and_one_of_another_card_is_not(tmp_path: Path) -> None:
    base = load_bundle(make_tiny_bundle(tmp_path / "base"))
    keep_identity(tmp_path, identity(RECIPE, base, None))
    (tmp_path / "step-0000002.pt").touch()
    (tmp_path / "base" / CARD_FILE).write_text("another card")
    assert is_same(tmp_path, identity(RECIPE, base, None))
    (tmp_path / "base" / LEXICON_FILE).write_bytes(b"another")
    with pytest.raises(ValueError, match=f"holds another run: SHA-256 of the base's {LEXICON_FILE} was"):
        is_same(tmp_path, identity(RECIPE, base, None))
