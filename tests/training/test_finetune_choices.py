"""Which utterances a fine-tuning run learns from and looks at, and whose weights it makes a bundle of."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from asr_service.model.bundle import load_bundle
from tests.engine.conftest import make_tiny_bundle
from training.data import Utterance
from training.finetune_config import FinetuneConfig
from training.finetune_run import FineTuning
from training.recipe import AugmentConfig, DataConfig, OptimConfig, Recipe

RECIPE = Recipe(
    "chosen",
    dtype="float32",
    data=DataConfig(corpora=("new",), dev_corpora=("new",), batch_s=4.0, max_utterance_s=2.0, lexicon=""),
    optim=OptimConfig(max_steps=10),
    finetune=FinetuneConfig(
        old_share=0.2, old_corpora=("old",), old_dev_corpora=("old",), report_utterances=3, look_utterances=2
    ),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FineTuning:
    """Three seconds of target, four of old data beside a recording that is too long, five utterances a dev set."""
    folder = tmp_path_factory.mktemp("speech")
    for name, seconds in (
        ("train", {"new": [1.0] * 3, "old": [1.0] * 4 + [3.0]}),
        ("dev", dict.fromkeys(("new", "old"), [1.0] * 5)),
    ):
        rows = []
        for corpus, durations in seconds.items():
            for number, duration_s in enumerate(durations):
                path = f"{name}-{corpus}-{number}.wav"
                soundfile.write(
                    folder / path, np.random.default_rng(number).normal(0, 0.1, int(16_000 * duration_s)), 16_000
                )
                rows.append({"audio_filepath": path, "duration": duration_s, "text": "tick baa", "corpus": corpus})
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    base = load_bundle(make_tiny_bundle(folder / "base"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASR_SPEECH_DIR", str(folder))
        return FineTuning(RECIPE, base, folder / "run", device=torch.device("cpu"), workers=1)


def test_the_target_is_gone_through_as_often_as_the_old_data_allow_and_none_of_them_is_too_long(
    run: FineTuning,
) -> None:
    assert run.old.passes == 5
    assert [utterance.duration_s for utterance in run.old.old] == [1.0] * 4
    assert Counter(Counter(example.index for example in run.trainer.examples).values()) == {5: 3, 1: 4}


def test_the_model_learns_after_the_silence_that_it_hears_when_it_serves(run: FineTuning) -> None:
    assert run.trainer.recipe.augment.lead_frames == run.base.streaming.lead_frames == 6


def test_a_recipe_that_says_what_the_bundle_says_is_refused(run: FineTuning, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, augment=AugmentConfig(lead_frames=4))
    with pytest.raises(ValueError, match=r"\[augment\] lead_frames cannot be in a recipe with \[finetune\]"):
        FineTuning(recipe, run.base, tmp_path, device=torch.device("cpu"), workers=1)


def test_looks_are_at_fewer_utterances_than_the_report(run: FineTuning, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[tuple[str, int]] = []

    def evaluated(_: object, utterances: list[Utterance]) -> Any:
        looked_at.append((utterances[0].corpus, len(utterances)))
        return type("Found", (), {"wer": 0.5, "shown": lambda _: ""})()

    monkeypatch.setattr("training.finetune_run.evaluated", evaluated)
    run.look(3)
    assert (len(run.dev), len(run.old_dev)) == (3, 3)
    assert looked_at == [("new", 2), ("old", 2)]


def test_a_bundle_is_made_of_the_averaged_weights(run: FineTuning) -> None:
    before = run.weights()
    run.trainer.average = {name: value + 1.0 for name, value in run.trainer.average.items()}
    after = run.weights()
    assert all(float((after[name] - value).min()) > 0.5 for name, value in before.items() if "lora" not in name)
    assert all(torch.equal(value, value.half().float()) for value in after.values())
