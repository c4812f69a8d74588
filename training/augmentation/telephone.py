"""What a telephone line leaves of speech: 8 kHz, one byte a sample (ITU-T G.711), perhaps 300-3400 Hz only.

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
TOP_HZ = 3_950.0
BAND_HZ = (300.0, 3_400.0)
# Width of the raised-cosine edges of the band.
EDGE_HZ = 100.0


@functools.cache
def _levels(law: str) -> Tensor:
    """The 255 or 256 values that a code can stand for, ascending."""
    return torch.from_numpy(np.unique(LAWS[law].decode(bytes(range(256)))))


def compand(waves: Tensor, law: str) -> Tensor:
    """Round each sample to the nearest value that the law (`mulaw`, `alaw`) has a code for."""
    levels = _levels(law).to(waves.device)
    code = torch.bucketize(waves.contiguous(), (levels[1:] + levels[:-1]) / 2)
    return levels[code]


def _edge(frequency: Tensor, cut_hz: float) -> Tensor:
    """From 0 below `cut_hz` to 1 at `EDGE_HZ` above it."""
    return 0.5 - 0.5 * torch.cos(torch.pi * ((frequency - cut_hz) / EDGE_HZ).clamp(0.0, 1.0))


def telephone(waves: Tensor, law: str, *, narrow: bool) -> Tensor:
    """(B, N) speech as after a telephone line, at its rate of before; `narrow`: 300-3400 Hz, else up to 4 kHz."""
    samples = waves.shape[1]
    length = fast_length(-(-samples // 2)) * 2
    frequency = torch.linspace(0.0, RATE_HZ / 4, length // 4 + 1, device=waves.device)
    band = 1.0 - _edge(frequency, (BAND_HZ[1] if narrow else TOP_HZ) - EDGE_HZ)
    if narrow:
        band = band * _edge(frequency, BAND_HZ[0])
    spectrum = torch.fft.rfft(waves, n=length)[:, : len(band)] * band
    line = compand(torch.fft.irfft(spectrum, n=length // 2) / 2, law)
    # The codes' rounding errors lie below 4 kHz as well; nothing above it comes back.
    heard: Tensor = torch.fft.irfft(torch.fft.rfft(line) * 2, n=length)
    return heard[:, :samples]
