"""SpecAugment (Park et al. 2019) on features. Dimensions: B batch, T frames, F mel bins."""

from __future__ import annotations

import torch
from torch import Tensor

from training.augmentation.device import on_device
from training.recipe import AugmentConfig


def spec_augment(features: Tensor, lengths: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Set bands of mel bins and stretches of time to the mean, zero. (B, T, F) → (B, T, F); the generator's is the CPU.

    A time mask is at most `time_fraction` of its row's own length, so short utterances keep their words.
    """
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
    bands, stretches = on_device(masked_bins, features.device), on_device(masked_frames, features.device)
    mask = bands.unsqueeze(1) | stretches.unsqueeze(2)
    return features.masked_fill(mask, 0.0)
