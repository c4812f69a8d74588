"""The convolution module of encoder blocks (Gulati et al. 2020, section 2.2), symmetric and local to the chunk.

Dimensions: B batch, T frames, D channels, K kernel width, C frames of a chunk, P = (K-1)/2 frames of context a side.

In a chunk, a frame sees P frames to its left, in the chunks before too, and to its right only what the chunk holds:
beyond it are zeros, in training under the chunk mask just as in a stream. With LayerNorm inside, not BatchNorm, batched
equals alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvolutionModule(nn.Module):
    """Pointwise with gate, depthwise over time, LayerNorm, SiLU, pointwise."""

    def __init__(self, d_model: int, kernel: int) -> None:
        super().__init__()
        self.context = (kernel - 1) // 2
        self.pointwise_in = nn.Linear(d_model, 2 * d_model)
        bound = kernel**-0.5
        self.depthwise_weight = nn.Parameter(torch.empty(d_model, 1, kernel, 1).uniform_(-bound, bound))
        self.depthwise_bias = nn.Parameter(torch.zeros(d_model))
        self.norm = nn.LayerNorm(d_model)
        self.pointwise_out = nn.Linear(d_model, d_model)

    def gate(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """(B, T, D) → (B, T, D), zero where `valid` (B, T) is False: the depthwise filter reads across the edge."""
        gated = F.glu(self.pointwise_in(x), dim=-1)
        return gated if valid is None else gated * valid.unsqueeze(-1).to(gated.dtype)

    def depthwise(self, gated: Tensor) -> Tensor:
        """(B, T + 2P, D) → (B, T, D): no padding of its own.

        As a grouped channels-last 2-D convolution: several times faster here than conv1d, which would transpose.
        """
        out = F.conv2d(
            gated.unsqueeze(2).permute(0, 3, 1, 2),
            self.depthwise_weight.to(gated.dtype),
            self.depthwise_bias.to(gated.dtype),
            groups=gated.shape[-1],
        )
        return out.permute(0, 2, 3, 1).squeeze(2)

    def finish(self, filtered: Tensor) -> Tensor:
        out: Tensor = self.pointwise_out(F.silu(self.norm(filtered)))
        return out

    def forward(self, x: Tensor, valid: Tensor | None, chunk: int | None) -> Tensor:
        """(B, T, D) → (B, T, D); `chunk` frames at a time, or None for full context."""
        gated = self.gate(x, valid)
        if chunk is None:
            return self.finish(self.depthwise(F.pad(gated, (0, 0, self.context, self.context))))
        batch, frames, width = gated.shape
        chunks = -(-frames // chunk)
        padded = F.pad(gated, (0, 0, self.context, chunks * chunk - frames))
        windows = padded.unfold(1, self.context + chunk, chunk).transpose(2, 3).flatten(0, 1)
        filtered = self.depthwise(F.pad(windows, (0, 0, 0, self.context)))
        return self.finish(filtered.reshape(batch, chunks * chunk, width)[:, :frames])

    def step(self, x: Tensor, valid: Tensor | None, left: Tensor) -> tuple[Tensor, Tensor]:
        """One chunk of a stream: (B, C, D), valid (B, C) or None for all, left context (B, P, D) → (B, C, D), joined
        frames (B, P + C + P, D).

        The caller keeps, of each row's joined frames, the P that end at its last valid one.
        """
        joined = torch.cat([left, self.gate(x, valid), left.new_zeros(left.shape)], dim=1)
        return self.finish(self.depthwise(joined)), joined
