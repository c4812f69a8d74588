"""Models small enough that a test takes a blink, with all the parts of the real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from asr_service.model.config import TransformerConfig
from asr_service.model.transformer import Transformer

TINY = TransformerConfig(
    n_mels=16,
    stem_channels=4,
    d_model=16,
    n_heads=2,
    ffn_dim=32,
    encoder_layers=4,
    decoder_layers=2,
    downsample_after=2,
    conv_kernel=5,
    vocab_size=24,
    phone_vocab_size=10,
    phone_layer=2,
    dropout=0.0,
)


@pytest.fixture(autouse=True)
def _one_thread_no_gradients() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def tiny_model(seed: int = 0, **changes: object) -> Transformer:
    """A tiny Transformer in evaluation mode with weights large enough that every part matters to the output."""
    torch.manual_seed(seed)
    model = Transformer(dataclasses.replace(TINY, **changes))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def random_features(*lengths: int, n_mels: int = 16, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T, F) features of rows of these lengths, noise beyond them too, and (B,) lengths."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(lengths), max(lengths), n_mels, generator=generator), torch.tensor(lengths)
