"""Warped frequencies: formants move by the factor, what is above them closes the gap."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from training.augmentation.vocal_tract import FORMANTS_BELOW_HZ, warped

RATE_HZ, BINS = 16_000, 80
CENTRES_HZ = librosa.mel_frequencies(n_mels=BINS + 2, fmin=0.0, fmax=RATE_HZ / 2)[1:-1]


def peaks_hz(features: torch.Tensor) -> list[float]:
    """Where each row of (B, 1, F) has its centre of mass."""
    shares = features[:, 0] / features[:, 0].sum(dim=-1, keepdim=True)
    return (shares.double().numpy() @ CENTRES_HZ).tolist()


def at(hz: float, rows: int) -> torch.Tensor:
    """A narrow formant in each of (rows, 1, F)."""
    bins = torch.from_numpy(np.exp(-(((CENTRES_HZ - hz) / 150.0) ** 2))).float()
    return bins.expand(rows, 1, BINS)


@pytest.mark.parametrize("hz", [700.0, 1500.0, 3000.0])
def test_a_formant_moves_by_the_factor(hz: float) -> None:
    factors = [0.9, 0.95, 1.0, 1.05, 1.1]
    assert peaks_hz(warped(at(hz, 5), factors, RATE_HZ)) == pytest.approx([hz / f for f in factors], rel=0.02)


def test_frequencies_above_the_formants_move_less_and_the_highest_stays() -> None:
    shift = [hz - 6500.0 for hz in peaks_hz(warped(at(6500.0, 2), [0.9, 1.1], RATE_HZ))]
    lowest = [FORMANTS_BELOW_HZ / f - FORMANTS_BELOW_HZ for f in (0.9, 1.1)]
    assert 0 < shift[0] < lowest[0] and lowest[1] < shift[1] < 0
    ends = torch.zeros(2, 1, BINS)
    ends[..., -1] = 1.0
    assert (warped(ends, [0.9, 1.1], RATE_HZ)[..., -1] > 0.7).all()


def test_what_is_the_same_everywhere_stays_and_a_factor_of_one_changes_nothing() -> None:
    flat = torch.full((2, 3, BINS), -1.5)
    torch.testing.assert_close(warped(flat, [0.85, 1.15], RATE_HZ), flat)
    features = torch.randn(2, 7, BINS, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(warped(features, [1.0, 0.9], RATE_HZ)[0], features[0])
    assert warped(features, [1.0, 1.0], RATE_HZ) is features
