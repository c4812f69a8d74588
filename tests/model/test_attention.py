"""Attention is the formula softmax(Q·Kᵀ/√d)·V, and its masks hide what they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from asr_service.model.attention import MultiHeadAttention, attend


def formula(
    query: NDArray[np.float64], key: NDArray[np.float64], value: NDArray[np.float64], seen: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """Equation 1 of Vaswani et al. 2017 for one head, (T, d), (S, d) ×2, (T, S) → (T, d)."""
    scores = query @ key.T / np.sqrt(query.shape[1])
    if seen is not None:
        scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)) @ value


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_the_formula_head_by_head(masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 3, 5, 4, generator=generator)
    key, value = torch.randn(2, 2, 3, 7, 4, generator=generator).unbind(0)
    mask = torch.rand(2, 1, 5, 7, generator=generator) < 0.6
    mask[..., 0] = True
    out = attend(query, key, value, mask if masked else None).numpy()
    assert out.shape == (2, 5, 12)
    for row in range(2):
        for head in range(3):
            expected = formula(
                *(tensor[row, head].numpy().astype(np.float64) for tensor in (query, key, value)),
                mask[row, 0].numpy() if masked else None,
            )
            np.testing.assert_allclose(out[row, :, head * 4 : head * 4 + 4], expected, rtol=0, atol=1e-6)


def test_a_masked_key_changes_nothing_however_large_it_is() -> None:
    query, key, value = torch.randn(3, 1, 2, 4, 8).unbind(0)
    mask = torch.tensor([True, True, False, True]).view(1, 1, 1, 4)
    before = attend(query, key, value, mask)
    key, value = key.clone(), value.clone()
    key[:, :, 2], value[:, :, 2] = 100.0, 1e4
    torch.testing.assert_close(attend(query, key, value, mask), before, rtol=0, atol=0)


def test_a_row_that_sees_no_key_has_no_nan() -> None:
    out = attend(*torch.randn(3, 1, 2, 4, 8).unbind(0), torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    assert torch.isfinite(out).all()


def test_multi_head_attention_is_torchs_with_the_same_weights() -> None:
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(16, 4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.in_proj_weight.copy_(torch.cat([ours.q_proj.weight, ours.kv_proj.weight]))
    theirs.in_proj_bias.copy_(torch.cat([ours.q_proj.bias, ours.kv_proj.bias]))
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    x, memory = torch.randn(2, 5, 16), torch.randn(2, 9, 16)
    out = ours(ours.query(x), *ours.key_value(memory), None)
    torch.testing.assert_close(out, theirs(x, memory, memory, need_weights=False)[0], rtol=0, atol=1e-6)
