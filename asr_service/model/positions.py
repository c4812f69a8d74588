"""Positional encodings: sinusoids (Vaswani et al. 2017, section 3.5) and rotary (Su et al. 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sinusoids(length: int, dim: int, *, device: torch.device | None = None) -> Tensor:
    """PE(pos, 2i) = sin(pos / 10000^(2i/dim)), PE(pos, 2i+1) = cos of the same. Returns (length, dim), float32."""
    position = torch.arange(length, dtype=torch.float32, device=device).unsqueeze(1)
    rate = torch.exp(
        torch.arange(0, dim, 2, dtype=torch.float32, device=device) * (-torch.log(torch.tensor(1e4)) / dim)
    )
    encoding = torch.empty(length, dim, device=device)
    encoding[:, 0::2] = torch.sin(position * rate)
    encoding[:, 1::2] = torch.cos(position * rate)
    return encoding


def rotary_angles(length: int, head_dim: int, *, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (length, head_dim/2), of positions 0…length-1 (float32).

    Only differences of positions reach an attention score, so positions may be counted from anywhere.
    """
    angle = torch.arange(length, dtype=torch.float32, device=device).unsqueeze(1) * _rates(head_dim, device)
    return torch.cos(angle), torch.sin(angle)


def rotary_angles_at(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (…, head_dim/2) in float32, of integer `positions` (…) however large.

    The angles are taken in float64: in float32, those of position 10⁶ would be off by a tenth of a radian.
    """
    angle = positions.double().unsqueeze(-1) * _rates(head_dim, positions.device).double()
    return torch.cos(angle).float(), torch.sin(angle).float()


def _rates(head_dim: int, device: torch.device | None) -> Tensor:
    return 1e4 ** (-torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate (…, T, head_dim) by its positions' angles, pairing the halves (i, i + head_dim/2); keeps the dtype."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rotary_tables(length: int, n_heads: int, head_dim: int, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """`rotary_angles` for `rotate_sequence`: cosines, and sines of which the first half's are negative, (T, H, d) each.

    They are of `like`'s type and device. Written out for every head, a product with them runs over whole frames.
    """
    cos, sin = rotary_angles(length, head_dim, device=like.device)
    halves = torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)
    cosines, sines = (half.to(like.dtype).unsqueeze(1).repeat(1, n_heads, 1) for half in halves)
    return cosines, sines


class _Turn(torch.autograd.Function):
    """Its own backward: autograd's would multiply gradients, which lie head by head in memory, with what does not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _turned(x, cosines, sines)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        return _turned(gradients[0], cosines, -sines), None, None


def _turned(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    x = x.transpose(1, 2).contiguous()  # as gradients and keys are not: the operations below would take twice as long
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cosines, torch.cat([second, first], dim=-1), sines).transpose(1, 2)


def rotate_sequence(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """`rotate` of whole sequences that lie in memory frame by frame, (B, H, T, d): a third of its time in training."""
    out: Tensor = _Turn.apply(x, cosines, sines)  # type: ignore[no-untyped-call]
    return out
