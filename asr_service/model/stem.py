"""The convolutional stem: 10 ms feature frames → 40 ms encoder frames, causal up to its own frame.

Dimensions: B batch, T feature frames, F mel bins, C channels, D model.

Each convolution is 3×3 with stride 2 and one frame of left padding in time: its output t sees inputs 2t-1, 2t, 2t+1. So
an encoder frame needs nothing beyond its own four feature frames, and a stream carries one frame a convolution.
"""

from __future__ import annotations

from typing import cast

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
        out, _, _ = self.step(features * valid, lengths, left1, None, lengths)
        return out, halved(halved(lengths))

    def _first(self, features: Tensor, lengths: Tensor) -> Tensor:
        """`conv1` as one matrix product: (B, 2T + 1, F) → (B, T, F/2, C), zero beyond a row's `lengths` (B,).

        The channels come out last, which the second convolution's backward pass needs to be fast, and the mask goes on
        ten columns (nine taps and the bias's) instead of on all channels: two fifths of the stem's training time saved.
        """
        columns = F.pad(features, (1, 1 + features.shape[2] % 2)).unfold(1, 3, 2).unfold(2, 3, 2).flatten(3)
        valid = length_mask(lengths, columns.shape[1])[:, :, None, None]
        weight = torch.cat([self.conv1.weight.flatten(1), cast(Tensor, self.conv1.bias).unsqueeze(1)], dim=1)
        return F.linear(F.pad(columns, (0, 1), value=1.0) * valid, weight)

    def step(
        self, features: Tensor, lengths: Tensor, left1: Tensor, left2: Tensor | None, kept: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One chunk with the frames before it: left1 (B, 1, F), left2 (B, C, 1, F/2) or None for zeros.

        Returns (B, ⌈T/4⌉, D) and the two left frames of the next chunk: the last of each row's `kept` (B,) frames,
        where that is a multiple of 4 (otherwise the stream ends here). `left2` is of `conv1`'s outputs as they are:
        GELU comes after the two are joined, for its backward pass takes a tenth of the time on a gradient in one piece.
        """
        frames = features.shape[1]
        features = torch.cat([left1, F.pad(features, (0, 0, 0, -frames % 4))], dim=1)
        first = self._first(features, halved(lengths))
        if left2 is None:
            left2 = first.new_zeros(first.shape[0], first.shape[3], 1, first.shape[2])
        first = torch.cat([left2.to(first.dtype).permute(0, 2, 3, 1), first], dim=1)
        activated = F.gelu(first).permute(0, 3, 1, 2)  # zero stays zero
        second = F.gelu(self.conv2(activated).permute(0, 2, 3, 1))  # on memory in order, for its backward pass
        out = self.proj(second.transpose(2, 3).flatten(2))
        left = last_valid(first.flatten(2), halved(kept), 1)
        left2 = left.view(*left.shape[:2], *first.shape[2:]).permute(0, 3, 1, 2)
        return out, last_valid(features, kept, 1), left2
