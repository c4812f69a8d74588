"""The training command over a corpus of noise, as a user would run it: a speech folder, a recipe, a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

REPOSITORY = Path(__file__).parents[2]
WORDS = ["the sea", "she sells shells", "by the sea shore", "sea shells", "the shore", "she sells"]
RECIPE = """
seed = 3
dtype = "{dtype}"
[model]
n_mels = 16
stem_channels = 2
d_model = 16
n_heads = 2
ffn_dim = 32
encoder_layers = 3
decoder_layers = 1
downsample_after = 1
conv_kernel = 3
vocab_size = 36
phone_vocab_size = 0
[data]
batch_s = 1.6
[optim]
lr = 1e-3
warmup_steps = 4
max_steps = 40
accumulate = {accumulate}
[augment]
start_step = 5
chunk_start_step = 5
chunks = [2, 4]
left = 8
"""


@dataclass(frozen=True)
class Command:
    """`speech` is the speech folder, `folder` holds recipe and runs."""

    speech: Path
    folder: Path

    def arguments(self, runs: str, *more: str, accumulate: int = 1, dtype: str = "float32") -> list[str]:
        """Arguments of `training.train` for a run called tiny in the folder `runs`."""
        recipe = self.folder / f"accumulate-{accumulate}" / "tiny.toml"
        recipe.parent.mkdir(exist_ok=True)
        recipe.write_text(RECIPE.format(accumulate=accumulate, dtype=dtype))
        return ["--config", str(recipe), "--runs", str(self.folder / runs), "--device", "cpu", *more]

    def start(self, program: list[str], *, log: Path) -> subprocess.Popen[bytes]:
        """A process of its own in the repository, with one torch thread."""
        environment = os.environ | {"ASR_SPEECH_DIR": str(self.speech), "OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
        with log.open("wb") as out:
            return subprocess.Popen(
                [sys.executable, *program], cwd=REPOSITORY, env=environment, stdout=out, stderr=subprocess.STDOUT
            )


def make_speech(folder: Path) -> Path:
    """train.jsonl of 36 utterances of noise, dev.jsonl of six."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for name, count in (("train", 36), ("dev", 6)):
        rows = []
        for number in range(count):
            text, duration_s = WORDS[number % len(WORDS)], 0.8 + 0.02 * number
            path = folder / f"{name}-{number}.wav"
            soundfile.write(path, rng.normal(0, 0.1, int(16_000 * duration_s)).astype(np.float32), 16_000)
            rows.append({"audio_filepath": path.name, "duration": duration_s, "text": text, "speaker": str(number % 3)})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
