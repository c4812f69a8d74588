"""Parts that encoder and decoder blocks share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_service.model.config import Activation


class ChannelDropout(nn.Module):
    """Dropout with one mask an utterance and channel, shared over time: (B, T, D).

    An element-wise mask costs a third of a CPU training step in random numbers alone.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        keep = 1.0 - self.p
        mask = torch.empty(x.shape[0], 1, x.shape[2], device=x.device, dtype=x.dtype).bernoulli_(keep)
        return x * (mask / keep)


class FeedForward(nn.Module):
    """FFN(x) = act(x·W₁ + b₁)·W₂ + b₂ (Vaswani et al. 2017, equation 2)."""

    def __init__(self, d_model: int, ffn_dim: int, activation: Activation) -> None:
        super().__init__()
        self.linear1 = nn.Linear(d_model, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, d_model)
        self.activation = F.relu if activation == "relu" else F.gelu

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(self.activation(self.linear1(x)))
        return out


def length_mask(lengths: Tensor, frames: int) -> Tensor:
    """(B,) → (B, frames), True where a frame lies inside its row."""
    return torch.arange(frames, device=lengths.device) < lengths.unsqueeze(1)
