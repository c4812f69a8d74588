"""What fine-tuning is tested with: recordings in which somebody seems to speak, and looks whose figures are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from training.data import Utterance
from training.finetune_run import FineTuning


def write_manifest(folder: Path, name: str, corpus: str, texts: list[str]) -> None:
    """Bursts of noise between silences, so that the engine hears somebody speak."""
    rng = np.random.default_rng(len(name))
    rows = []
    for number, text in enumerate(texts):
        path = f"{corpus}-{name}-{number}.wav"
        level = np.repeat([0.001, 0.3, 0.001, 0.2, 0.001], 3200 + 160 * number)
        pcm = rng.normal(0, 1, len(level)).astype(np.float32) * level.astype(np.float32)
        soundfile.write(folder / path, pcm, 16_000)
        row = {"audio_filepath": path, "duration": len(pcm) / 16_000, "text": text, "speaker": "x", "corpus": corpus}
        rows.append(json.dumps(row))
    with (folder / name).open("a") as file:
        file.write("\n".join(rows) + "\n")


def scripted(run: FineTuning, monkeypatch: pytest.MonkeyPatch, rates: dict[int, tuple[float, float]]) -> list[int]:
    """Word error rates by step instead of measured ones; returns the list that collects the steps looked at."""
    steps: list[int] = []

    def measure(bundle: object, utterances: list[Utterance], cache: object = None) -> Any:
        target = utterances[0].corpus == "new"
        if target:
            steps.append(run.trainer.position.step)
        rate = rates[run.trainer.position.step][0 if target else 1]
        return type("Scripted", (), {"wer": rate, "shown": lambda _: "", "every": lambda self, _: self})()

    monkeypatch.setattr("training.finetune_run.evaluated", measure)
    return steps
