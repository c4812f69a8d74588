"""Multi-head attention, Attention(Q, K, V) = softmax(Q·Kᵀ/√d_head)·V (Vaswani et al. 2017, equation 1).

Dimensions: B batch, H heads, T query frames, S key frames, D model, d = D/H.

Plain matrix products on purpose: on CPU in bf16 they are over twice as fast as `scaled_dot_product_attention`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Added to the scores of masked keys: finite, so that a row of padding has no NaN, and so low that its exponential is 0.
# An addition has no work in its backward pass, a `masked_fill` of the scores has.
MASKED = -1e4


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """(B, H, T, d), (B, H, S, d) ×2 → (B, T, D). `mask` broadcasts to (B, H, T, S) and is True where a key is seen."""
    with torch.autocast(query.device.type, enabled=False):  # it would compute the softmax in fp32, at twice the bytes
        scores = (query * (1.0 / math.sqrt(query.shape[-1]))) @ key.transpose(-1, -2)
        if mask is not None:
            scores += torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, MASKED)
        out = torch.softmax(scores, dim=-1) @ value
    return out.transpose(1, 2).flatten(2)


def attend_cached(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """(B, H, T, d), (B, H, S, d) ×2 → (B, T, D) in the query's type; `bias` is added to the scores. Inference.

    The products are in the type of keys and values, which may be a cache's bf16; the softmax in the query's.
    """
    scores = ((query * (1.0 / math.sqrt(query.shape[-1]))).to(key.dtype) @ key.transpose(-1, -2)).to(query.dtype)
    if bias is not None:
        scores += bias
    out = torch.softmax(scores, dim=-1).to(value.dtype) @ value
    return out.transpose(1, 2).flatten(2).to(query.dtype)


class MultiHeadAttention(nn.Module):
    """Projections around `attend`. Keys and values come from `key_value`, so that a cache can hold them.

    Attributes:
        product_dtype: for inference, the type of the two products of attention, with the softmax in fp32. None leaves
            everything in the inputs' type.
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.product_dtype: torch.dtype | None = None
        self.n_heads = n_heads
        self.q_proj = nn.Linear(d_model, d_model)
        self.kv_proj = nn.Linear(d_model, 2 * d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, H, T, d)."""
        return x.view(*x.shape[:-1], self.n_heads, -1).transpose(1, 2)

    def query(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, H, T, d)."""
        return self.heads(self.q_proj(x))

    def key_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, D) → keys and values, each (B, H, S, d)."""
        key, value = self.kv_proj(x).chunk(2, dim=-1)
        return self.heads(key), self.heads(value)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attention over projected heads, then the output projection: → (B, T, D)."""
        dtype = self.product_dtype
        if dtype is None or query.shape[2] == 1:  # with one query, products in bf16 are slower
            branch = attend(query, key, value, mask)
        else:
            bias = None if mask is None else torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, MASKED)
            branch = attend_cached(query, key.to(dtype), value.to(dtype), bias)
        out: Tensor = self.out_proj(branch)
        return out
