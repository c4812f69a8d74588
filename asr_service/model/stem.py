"""The convolutional stem: 10 ms feature frames → 40 ms encoder frames, causal up to its own frame.

Dimensions: B batch, T feature frames, F mel bins, C channels, D model.

Each convolution is 3×3 with stride 2 and one frame of left padding in time: its output t sees inputs 2t-1, 2t, 2t+1. So
an encoder frame needs nothing beyond its own four feature frames, and a stream carries one frame a convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_service.model.cache import last_valid
from asr_service.model.layers import length_mask


def halved(lengths: Tensor) -> Tensor:
    return (lengths + 1) // 2


class ConvStem4(nn.Module):
    """Two 3×3 convolutions of stride 2, then a projection of (channels, F/4) to D."""

    def __init__(self, n_mels: int, channels: int, d_model: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, stride=2, padding=(0, 1))
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=2, padding=(0, 1))
        self.proj = nn.Linear(channels * -(-n_mels // 4), d_model)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F), (B,) → (B, ⌈T/4⌉, D), (B,) lengths in 40 ms frames."""
        valid = length_mask(lengths, features.shape[1]).unsqueeze(-1)
        left1 = features.new_zeros(features.shape[0], 1, features.shape[2])
        out, _, _ = self.step(features * valid, lengths, left1, None)
        return out, halved(halved(lengths))

    def step(
        self, features: Tensor, lengths: Tensor, left1: Tensor, left2: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One chunk with the frames before it: left1 (B, 1, F), left2 (B, C, 1, F/2) or None for zeros.

        Returns (B, ⌈T/4⌉, D) and the two left frames of the next chunk: each row's last that counts, where its
        `lengths` is a multiple of 4 (otherwise the stream ends here).
        """
        frames = features.shape[1]
        features = torch.cat([left1, F.pad(features, (0, 0, 0, -frames % 4))], dim=1)
        first = F.gelu(self.conv1(features.unsqueeze(1)))
        inside = length_mask(halved(lengths), first.shape[2])[:, None, :, None]
        first = first * inside.to(first.dtype)
        if left2 is None:
            left2 = first.new_zeros(first.shape[0], first.shape[1], 1, first.shape[3])
        first = torch.cat([left2.to(first.dtype), first], dim=2)
        second = F.gelu(self.conv2(first))
        out = self.proj(second.transpose(1, 2).flatten(2))
        return out, last_valid(features, lengths, 1), last_valid(first, halved(lengths), 1)
