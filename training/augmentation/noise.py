"""Additive noise at a given signal-to-noise ratio. Dimensions: B batch, N samples.

Coloured noise has a power density of 1/f^slope: white (0), pink (1), brown (2). Babble is the sum of other speakers'
voices, as in Kaldi's MUSAN recipes (Snyder, Chen, Povey 2015), here taken from the training data itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from training.augmentation.device import on_device
from training.augmentation.fourier import fast_length

# Below this the density is flat: the energy of brown noise would otherwise lie where neither speech nor ear is.
FLAT_BELOW_HZ = 50.0


def coloured_noise(
    slopes: Sequence[float], samples: int, sample_rate_hz: int, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Gaussian noise, one row a slope: (B, N), of no particular level."""
    length = fast_length(samples)
    bins = length // 2 + 1
    spectrum = torch.randn(len(slopes), bins, dtype=torch.complex64, generator=generator, device=device)
    frequency = torch.linspace(0.0, sample_rate_hz / 2, bins, device=device).clamp(min=FLAT_BELOW_HZ)
    exponents = on_device(torch.tensor(slopes), device).unsqueeze(1) / -2.0
    noise: Tensor = torch.fft.irfft(spectrum * (frequency / FLAT_BELOW_HZ) ** exponents, n=length)
    return noise[:, :samples]


def babble(voices: Sequence[Tensor], samples: int, rng: random.Random) -> Tensor:
    """The sum of (n,) recordings at equal power, each from a random point on and repeated as needed: (N,).

    Raises ValueError for a recording without samples.
    """
    total = voices[0].new_zeros(samples, dtype=torch.float32)
    for voice in voices:
        if not len(voice):
            raise ValueError("a voice of the babble has no samples")
        start = rng.randrange(len(voice))
        pieces = [voice[start : start + samples]]
        while (missing := samples - sum(map(len, pieces))) > 0:
            pieces.append(voice[:missing])
        wave = torch.cat(pieces).float()
        total += wave / wave.square().mean().sqrt().clamp(min=1e-8)
    return total


def add_noise(waves: Tensor, lengths: Tensor, noise: Tensor, snr_db: Tensor) -> Tensor:
    """Scale the noise to each row's ratio of mean powers over its (B,) length, and add it: (B, N), padding is zero."""
    inside = torch.arange(waves.shape[1], device=waves.device) < lengths.unsqueeze(1)
    noise = noise.masked_fill(~inside, 0.0)
    signal_energy = (waves * inside).square().sum(dim=1, keepdim=True)
    noise_energy = noise.square().sum(dim=1, keepdim=True).clamp(min=1e-12)
    gain = torch.sqrt(signal_energy / noise_energy * 10.0 ** (-snr_db.unsqueeze(1) / 10.0))
    return (waves + gain * noise).masked_fill(~inside, 0.0)
