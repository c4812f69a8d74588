"""What a telephone line leaves of speech: 8 kHz, perhaps 300-3400 Hz of it only, one byte a sample (ITU-T G.711).

Dimensions: B batch, N samples at 16 kHz.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from asr_service.audio.pcm import ALAW, MULAW
from training.augmentation.fourier import fast_length

LAWS = {"mulaw": MULAW, "alaw": ALAW}
RATE_HZ = 16_000
# Where lines and the resamplers before them may cut: an old handset's band, or nearly all that 8 kHz can hold.
LOW_HZ = (0.0, 300.0)
HIGH_HZ = (3_400.0, 3_950.0)
# Width of the band's raised-cosine edges, which lie inside it.
EDGE_HZ = 100.0


@functools.cache
def _levels(law: str, device: torch.device) -> Tensor:
    """The 255 or 256 values that a code can stand for, ascending."""
    return torch.from_numpy(np.unique(LAWS[law].decode(bytes(range(256))))).to(device)


def compand(waves: Tensor, law: str) -> Tensor:
    """Round each sample to the nearest value that the law (`mulaw`, `alaw`) has a code for."""
    levels = _levels(law, waves.device)
    code = torch.bucketize(waves.contiguous(), (levels[1:] + levels[:-1]) / 2)
    return levels[code]


def _edge(inside_hz: Tensor) -> Tensor:
    """From 0 outside the band to 1 at `EDGE_HZ` inside it."""
    return 0.5 - 0.5 * torch.cos(torch.pi * (inside_hz / EDGE_HZ).clamp(0.0, 1.0))


def telephone(waves: Tensor, low_hz: Tensor, high_hz: Tensor, law: str | None) -> Tensor:
    """(B, N) speech as after a telephone line, at its rate of before; the (B,) frequencies bound what passes.

    `law`: `mulaw`, `alaw`, or None for linear samples. Nothing is cut below where `low_hz` is 0.
    """
    samples = waves.shape[1]
    length = fast_length(-(-samples // 2)) * 2
    frequency = torch.linspace(0.0, RATE_HZ / 4, length // 4 + 1, device=waves.device)
    low_hz, high_hz = low_hz.unsqueeze(1), high_hz.unsqueeze(1)
    band = _edge(high_hz - frequency) * _edge(frequency - low_hz).masked_fill(low_hz == 0, 1.0)
    spectrum = torch.fft.rfft(waves, n=length)[:, : len(frequency)] * band
    line = torch.fft.irfft(spectrum, n=length // 2) / 2
    if law is not None:
        line = compand(line, law)
    # The codes' rounding errors lie below 4 kHz as well; nothing above it comes back.
    heard: Tensor = torch.fft.irfft(torch.fft.rfft(line) * 2, n=length)
    return heard[:, :samples]
