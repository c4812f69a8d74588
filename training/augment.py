"""SpecAugment on features and speed perturbation on samples. Dimensions: B batch, T frames, F mel bins."""

from __future__ import annotations

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.recipe import AugmentConfig


def change_speed(pcm: NDArray[np.float32], speed: float) -> NDArray[np.float32]:
    """Play (N,) samples `speed` times as fast, pitch and all: (N/speed,) (Ko et al. 2015)."""
    if speed == 1.0:
        return pcm
    resampled: NDArray[np.float32] = soxr.resample(pcm, speed, 1.0, quality="LQ")
    return resampled


def spec_augment(features: Tensor, lengths: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Set bands of mel bins and stretches of time to the mean, zero (Park et al. 2019). (B, T, F) → (B, T, F)."""
    batch, frames, bins = features.shape

    def inside_bands(widest: Tensor, extent: Tensor, size: int) -> Tensor:
        """Largest widths (B, masks) and the extents (B, 1) they lie in → (B, size), True inside a random band."""
        width = torch.rand(widest.shape, generator=generator) * widest
        start = torch.rand(widest.shape, generator=generator) * (extent - width).clamp(min=0)
        position = torch.arange(size)
        return ((position >= start.unsqueeze(-1)) & (position < (start + width).unsqueeze(-1))).any(dim=1)

    widest_band = torch.full((batch, config.freq_masks), float(config.freq_width))
    masked_bins = inside_bands(widest_band, torch.full((batch, 1), float(bins)), bins)
    extent = lengths.cpu().float().unsqueeze(1)
    masked_frames = inside_bands(extent.repeat(1, config.time_masks) * config.time_fraction, extent, frames)
    mask = (masked_bins.unsqueeze(1) | masked_frames.unsqueeze(2)).to(features.device)
    return features.masked_fill(mask, 0.0)
