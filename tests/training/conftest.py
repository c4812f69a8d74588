"""A tiny corpus of noise with words, so that a whole run takes a second."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from asr_service.features import FeatureConfig, LogMel
from asr_service.model.config import TransformerConfig
from asr_service.model.transformer import Transformer
from asr_service.tokenizer import WordPieces
from training.data import PcmStore, Utterance
from training.dataset import Example, make_examples
from training.distributed import ALONE, Processes
from training.recipe import AugmentConfig, DataConfig, OptimConfig, Recipe
from training.trainer import Trainer

WORDS = ["the sea", "she sells shells", "by the sea shore", "sea shells", "the shore", "she sells"]
MODEL = TransformerConfig(
    n_mels=16,
    stem_channels=2,
    d_model=16,
    n_heads=2,
    ffn_dim=32,
    encoder_layers=3,
    decoder_layers=1,
    downsample_after=1,
    conv_kernel=3,
    vocab_size=36,
    phone_vocab_size=0,
    dropout=0.1,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Corpus:
    """Utterances on disk, their store, and trainers over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        self.utterances = []
        for number, text in enumerate(WORDS * 2):
            duration_s = 0.8 + 0.1 * number
            path = folder / f"{number}.wav"
            soundfile.write(path, rng.normal(0, 0.1, int(16_000 * duration_s)).astype(np.float32), 16_000)
            self.utterances.append(Utterance(path, duration_s, text, "somebody", "noise"))
        self.store = PcmStore.build(self.utterances, folder / "store", workers=1)
        self.pieces = WordPieces.train(WORDS, MODEL.vocab_size)
        self.examples: list[Example]
        self.examples, self.counts = make_examples(self.utterances, self.pieces, None, max_utterance_s=30.0)

    def front_end(self) -> LogMel:
        front_end = LogMel(FeatureConfig(n_mels=16))
        front_end.mean, front_end.std = torch.full((16,), -9.0), torch.full((16,), 2.0)
        return front_end

    def trainer(
        self,
        run: str,
        *,
        seed: int = 1,
        dropout: float = MODEL.dropout,
        processes: Processes = ALONE,
        lead_frames: int = 0,
        **optim: Any,
    ) -> Trainer:
        """fp32, with augmentation and chunk masks from the first steps on, so that a resumed run must draw the same."""
        settings = {"lr": 1e-3, "warmup_steps": 2, "max_steps": 6, "ema_decay": 0.9}
        model_config = dataclasses.replace(MODEL, dropout=dropout)
        recipe = Recipe(
            name=run,
            seed=seed,
            dtype="float32",
            model=model_config,
            data=DataConfig(batch_s=5.0),
            optim=OptimConfig(**settings | optim),
            augment=AugmentConfig(start_step=1, chunk_start_step=1, chunks=(2, 4), left=8, lead_frames=lead_frames),
        )
        torch.manual_seed(seed)
        return Trainer(
            recipe,
            Transformer(model_config),
            self.front_end(),
            self.store,
            self.examples,
            self.folder / run,
            device=torch.device("cpu"),
            processes=processes,
        )


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"))
