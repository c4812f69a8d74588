"""Positional encodings against their formulas; rotary scores know distances only, at any place in a stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from asr_service.model.cache import EncoderCache
from asr_service.model.positions import (
    rotary_angles,
    rotary_angles_at,
    rotary_tables,
    rotate,
    rotate_sequence,
    sinusoids,
)
from tests.model.conftest import random_features, tiny_model


def test_sinusoids_are_the_formula() -> None:
    length, dim = 600, 64
    encoding = sinusoids(length, dim).numpy()
    position = np.arange(length, dtype=np.float64)
    for i in range(dim // 2):
        angle = position / 10_000 ** (2 * i / dim)
        np.testing.assert_allclose(encoding[:, 2 * i], np.sin(angle), atol=1e-4)
        np.testing.assert_allclose(encoding[:, 2 * i + 1], np.cos(angle), atol=1e-4)


def rotated_scores(query: NDArray[np.float64], key: NDArray[np.float64], offset: int) -> NDArray[np.float64]:
    """Rotary scores in complex float64 at absolute positions (Su et al. 2021, equation 12): (T, d), (S, d) → (T, S)."""
    half = query.shape[1] // 2
    rate = 10_000.0 ** (-np.arange(half) / half)

    def spin(x: NDArray[np.float64]) -> NDArray[np.complex128]:
        positions = offset + np.arange(len(x))
        # Whole turns are taken off in exact arithmetic's stead by float64, good for 10⁶ positions to 1e-9.
        return (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * positions[:, None] * rate)

    scores: NDArray[np.float64] = (spin(query) @ spin(key).conj().T).real
    return scores


@pytest.mark.parametrize("offset", [0, 1_000, 1_000_000])
def test_rotary_scores_counted_from_the_window_are_those_of_absolute_positions(offset: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 40, 16, generator=generator).unbind(0)
    angles = rotary_angles(40, 16)
    ours = rotate(query, *angles) @ rotate(key, *angles).T
    expected = rotated_scores(query.double().numpy(), key.double().numpy(), offset)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shift", [1, 17, 100])
def test_rotary_scores_depend_on_the_distance_alone(shift: int) -> None:
    query, key = torch.randn(2, 1, 16).unbind(0)
    cos, sin = rotary_angles(200, 16)

    def score(i: int, j: int) -> float:
        return float(rotate(query, cos[i : i + 1], sin[i : i + 1]) @ rotate(key, cos[j : j + 1], sin[j : j + 1]).T)

    assert score(30, 10) == pytest.approx(score(30 + shift, 10 + shift), abs=1e-4)
    assert abs(score(30, 10) - score(30 + shift, 10)) > 1e-3


def test_rotation_keeps_lengths_and_leaves_position_zero() -> None:
    x = torch.randn(50, 16)
    turned = rotate(x, *rotary_angles(50, 16))
    torch.testing.assert_close(turned.norm(dim=1), x.norm(dim=1))
    torch.testing.assert_close(turned[0], x[0])


def test_rotary_angles_at_are_those_of_small_positions_and_exact_at_large_ones() -> None:
    for ours, expected in zip(rotary_angles_at(torch.arange(50), 16), rotary_angles(50, 16), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    query, key = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(1)).unbind(0)

    def score(start: int) -> float:
        (cos, sin) = rotary_angles_at(torch.tensor([[start + 30], [start + 10]]), 16)
        return float(rotate(query, cos[0], sin[0]) @ rotate(key, cos[1], sin[1]).T)

    for start in (10**3, 10**6, 10**9):
        assert score(start) == pytest.approx(score(0), abs=1e-5)


def test_a_stream_of_repeated_audio_comes_to_an_output_that_repeats_and_so_lasts_for_ever() -> None:
    model = tiny_model()
    features, lengths = random_features(32)
    cache = EncoderCache.empty(model.config, 1, left_frames=16, step_frames=8)
    outputs = [model.encoder.forward_chunk(features, lengths, cache).hidden for _ in range(24)]
    torch.testing.assert_close(outputs[-1], outputs[-2], rtol=0, atol=1e-5)
    assert (outputs[0] - outputs[-1]).abs().max() > 1e-3  # the left context does matter


@torch.enable_grad()
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 0.04)]
)
def test_rotating_sequences_is_rotating_with_the_same_gradients(dtype: torch.dtype, tolerance: float) -> None:
    """In heads of a projection that holds more than them, as keys are."""
    batch, frames, heads, width = 2, 21, 4, 6
    x = torch.randn(batch, frames, 2 * heads * width, generator=torch.Generator().manual_seed(0)).to(dtype)
    x.requires_grad_()
    part = x[..., : heads * width].view(batch, frames, heads, width).transpose(1, 2)
    cos, sin = rotary_angles(frames, width)
    expected = rotate(part, cos, sin)
    turned = rotate_sequence(part, *rotary_tables(frames, heads, width, like=x))
    torch.testing.assert_close(turned, expected, rtol=0, atol=tolerance)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    gradients = [torch.autograd.grad((out * weights).sum(), x, retain_graph=True)[0] for out in (turned, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=tolerance)


@torch.enable_grad()
def test_the_gradient_of_a_rotated_sequence_is_that_of_differences() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(rotate_sequence, (x, *rotary_tables(5, 3, 4, like=x)))
