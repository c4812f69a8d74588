"""A tiny bundle with random weights: recognises nothing, but exercises every joint of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr_service.decoding.config import DecodingConfig
from asr_service.decoding.lexicon_beam import LexiconBeamOptions
from asr_service.features import FeatureConfig
from asr_service.lexicon import PHONES, Lexicon
from asr_service.model.bundle import LM_FILE, Bundle, StreamingConfig, load_bundle, save_bundle
from asr_service.model.config import TransformerConfig
from asr_service.model.transformer import Transformer
from asr_service.tokenizer import WordPieces
from tests.engine.stepped import SETTINGS, Stepped

WORDS = {phone.lower(): ((phone,),) for phone in PHONES} | {"baa": (("B", "AA"),), "tick": (("T", "IH", "K"),)}


def write_arpa(path: Path) -> None:
    """A bigram model in which no two words are equally likely, so that no two hypotheses tie."""
    words = ["<unk>", "<s>", "</s>", *sorted(WORDS)]
    pairs = [(first, second) for first in words if first != "</s>" for second in words if second != "<s>"]
    rng = np.random.default_rng(0)
    lines = ["\\data\\", f"ngram 1={len(words)}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    lines += [f"{-1.5 - 0.01313 * place:.5f}\t{word}\t0" for place, word in enumerate(words)]
    lines += ["", "\\2-grams:"] + [f"{-rng.uniform(1, 2):.5f}\t{first} {second}" for first, second in pairs]
    path.write_text("\n".join([*lines, "", "\\end\\", ""]))


def save_random_bundle(
    folder: Path,
    config: TransformerConfig,
    *,
    name: str,
    pieces: WordPieces,
    streaming: StreamingConfig,
    decoding: dict[str, Any],
    lexicon: Lexicon | None = None,
) -> Path:
    """A bundle whose weights torch's generator draws, as it stands."""
    model = Transformer(config)
    for head in (model.phone_head, model.ctc_head):
        if head is not None:
            torch.nn.init.normal_(head.weight, std=0.5)  # so that blank does not win everywhere
    save_bundle(
        folder,
        name=name,
        weights=model.state_dict(),
        mean=torch.full((80,), -8.0),
        std=torch.full((80,), 3.0),
        model_config=config,
        feature_config=FeatureConfig(),
        streaming=streaming,
        decoding=decoding,
        pieces=pieces,
        lexicon=lexicon,
    )
    return folder


def make_tiny_bundle(folder: Path, *, phones: bool = True) -> Path:
    torch.manual_seed(7)
    pieces = WordPieces.train(sorted(WORDS) * 3, 40)
    config = TransformerConfig(
        stem_channels=4,
        d_model=32,
        n_heads=2,
        ffn_dim=48,
        encoder_layers=4,
        decoder_layers=1,
        downsample_after=2,
        phone_layer=2,
        conv_kernel=7,
        vocab_size=pieces.vocab_size,
        phone_vocab_size=40 if phones else 0,
    )
    decoding = DecodingConfig(
        accurate=LexiconBeamOptions(beam_size=20, lm_weight=0.1),
        streaming=LexiconBeamOptions(beam_size=10, lm_weight=0.1),
    )
    save_random_bundle(
        folder,
        config,
        name="tiny",
        pieces=pieces,
        streaming=StreamingConfig(chunk_frames=16, left_frames=32, lookahead_frames=4, lead_frames=6),
        decoding=decoding.to_dict(),
        lexicon=Lexicon(WORDS) if phones else None,
    )
    if phones:
        write_arpa(folder / LM_FILE)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def tiny_bundle(tiny_bundle_dir: Path):
    return load_bundle(tiny_bundle_dir)


@pytest.fixture
def engine(tiny_bundle: Bundle) -> Stepped:
    return Stepped(tiny_bundle, SETTINGS)
