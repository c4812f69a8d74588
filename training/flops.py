"""Floating-point operations of a training step, and what share of the chip's peak they come to.

Dimensions: B batch, T feature frames, T4 and T8 encoder frames, U decoder steps, D model, E feed-forward, V vocabulary.

Counted are the matrix products and the stem's convolutions, two operations a multiplication, forward once and backward
twice (Kaplan et al. 2020, section 2.1), on padded shapes: what the chip does, not what is useful.
`torch.utils.flop_counter` counts the same (tested) but for the first layer, which needs no gradient of its input, and
for the backward of depthwise filters, which it takes for full convolutions.
"""

from __future__ import annotations

import re
import time

import torch

from asr_service.model.config import TransformerConfig

# Dense bf16 FLOP/s of the data sheets, by a part of the device's name.
PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}


def training_flops(config: TransformerConfig, batch: int, frames: int, tokens: int) -> float:
    """Forward and backward of (B, T, F) features and (B, U - 1) tokens."""
    d, ffn, mels, channels = config.d_model, config.ffn_dim, config.n_mels, config.stem_channels
    half, quarter = -(-frames // 2), -(-frames // 4)
    bins2, bins4 = -(-mels // 2), -(-mels // 4)
    macs = 9.0 * channels * half * bins2 + 9.0 * channels * channels * quarter * bins4 + quarter * channels * bins4 * d
    at, steps = quarter, tokens + 1
    for layer in range(config.encoder_layers):
        if layer == config.downsample_after:
            at = -(-quarter // 2)
            macs += at * 2 * d * d
        macs += _attention(at, at, d) + 2.0 * at * d * ffn
        if config.conv_kernel:
            macs += at * d * (3 * d + config.conv_kernel)
    macs += quarter * 3.0 * d * config.phone_vocab_size  # two heads and the feedback
    macs += at * d * config.vocab_size
    for _ in range(config.decoder_layers):
        macs += _attention(steps, steps, d) + _attention(steps, at, d) + 2.0 * steps * d * ffn
    macs += steps * d * config.vocab_size
    return 3 * 2 * batch * macs


def _attention(queries: int, keys: int, d_model: int) -> float:
    """Multiplications of the four projections and the two products of one sequence."""
    return 2.0 * queries * d_model**2 + 2.0 * keys * d_model**2 + 2.0 * queries * keys * d_model


def data_sheet_peak(name: str) -> float | None:
    """bf16 FLOP/s of the chip that a driver calls so; None for one that `PEAKS` lacks."""
    return next((peak for part, peak in PEAKS.items() if re.search(rf"\b{part}\b", name)), None)


def peak_flops(device: torch.device, compute_dtype: torch.dtype) -> tuple[float, str]:
    """FLOP/s of one chip in that type, and where the number is from: its data sheet, else a large product here."""
    name = str(compute_dtype).removeprefix("torch.")
    if device.type == "cuda" and compute_dtype == torch.bfloat16:
        chip = torch.cuda.get_device_name(device)
        if (peak := data_sheet_peak(chip)) is not None:
            return peak, f"{name}, {chip}'s data sheet"
    size = 4096 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=compute_dtype)
    times = []
    for _ in range(4):
        begun = time.perf_counter()
        float((a @ a)[0, 0])  # waits for the device
        times.append(time.perf_counter() - begun)
    return 2 * size**3 / min(times), f"{name}, a product of {size}×{size} matrices here"
