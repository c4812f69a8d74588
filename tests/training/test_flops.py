"""The formula against torch's counter."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from asr_service.model.config import PRESETS, TransformerConfig
from asr_service.model.transformer import Transformer
from tests.precisions import needs_bf16
from tests.training.conftest import MODEL
from training.flops import data_sheet_peak, peak_flops, training_flops
from training.loss import Batch, losses
from training.recipe import LossConfig

FRAMES, TOKENS = 160, 12
CONFIGS = pytest.mark.parametrize("config", [MODEL, PRESETS["streaming-s"]], ids=["tiny", "streaming-s"])


def counted(config: TransformerConfig, *, backward: bool) -> int:
    batch = Batch(
        features=torch.randn(2, FRAMES, config.n_mels),
        lengths=torch.tensor([FRAMES, FRAMES]),
        tokens=torch.randint(3, config.vocab_size, (2, TOKENS)),
        token_lengths=torch.tensor([TOKENS, TOKENS]),
        phones=torch.randint(1, 39, (2, TOKENS)),
        phone_lengths=torch.tensor([TOKENS, TOKENS]),
        seconds=3.2,
    )
    with FlopCounterMode(display=False) as counter:
        total = losses(Transformer(config), batch, LossConfig(), None)["total"]
        if backward:
            total.backward()
    return int(counter.get_total_flops())


@CONFIGS
def test_a_third_of_the_formula_is_what_torch_counts_forward(config: TransformerConfig) -> None:
    assert training_flops(config, 2, FRAMES, TOKENS) / 3 == pytest.approx(counted(config, backward=False), rel=0.01)


@CONFIGS
def test_the_formula_is_what_torch_counts_but_for_the_first_layer(config: TransformerConfig) -> None:
    """Without depthwise filters, whose backward torch counts as if they were not grouped."""
    config = dataclasses.replace(config, conv_kernel=0)
    first_layer = 2 * 2 * (FRAMES / 2) * (config.n_mels / 2) * 9 * config.stem_channels
    formula = training_flops(config, 2, FRAMES, TOKENS)
    assert formula - first_layer == pytest.approx(counted(config, backward=True), rel=0.01)


@pytest.mark.parametrize("compute_dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bf16)], ids=str)
def test_the_peak_of_a_cpu_is_measured_in_the_type_of_the_products(compute_dtype: torch.dtype) -> None:
    peak, source = peak_flops(torch.device("cpu"), compute_dtype)
    assert peak > 1e9
    assert source.startswith(f"{compute_dtype}, a product of".removeprefix("torch."))


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", None),
        ("NVIDIA RTX A1000", None),
    ],
)
def test_the_peak_of_a_gpu_is_its_own_data_sheets(name: str, peak: float | None) -> None:
    assert data_sheet_peak(name) == peak
