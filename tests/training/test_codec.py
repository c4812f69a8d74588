"""Codecs change speech, and neither its length nor its place in time."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.augmentation.codec import CODECS, RATE_HZ, coded
from training.augmentation.waveform import WaveformAugmentation
from training.recipe import AugmentConfig


def sweep(seconds: float) -> NDArray[np.float32]:
    """A tone that rises from 200 to 3,000 Hz: in one place alone it is like itself."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (0.3 * np.sin(2 * np.pi * (200 * time + 1_400 / seconds * time**2))).astype(np.float32)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", sorted(CODECS))
def test_what_is_heard_is_in_time_with_what_was_said(name: str, strength: float) -> None:
    wave = sweep(1.5)
    heard = coded(wave, name, strength)
    assert heard.shape == wave.shape and heard.dtype == np.float32
    size = 2 * len(wave)
    correlation = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(wave, size)))
    lag = int(np.argmax(correlation))
    assert min(lag, size - lag) <= 8  # half a millisecond
    assert correlation.max() > 0.7 * np.linalg.norm(wave) * np.linalg.norm(heard)
    assert not np.allclose(heard, wave, atol=1e-3)
    assert np.array_equal(heard, coded(wave, name, strength))


@pytest.mark.parametrize("name", sorted(CODECS))
def test_what_is_above_full_scale_is_cut(name: str) -> None:
    wave = 4.0 * sweep(1.0)
    heard, cut = coded(wave, name, 0.0), np.clip(wave, -1.0, 1.0)
    assert np.dot(heard, cut) > 0.8 * np.linalg.norm(heard) * np.linalg.norm(cut)


@pytest.mark.parametrize("samples", [1, 37, 700])
@pytest.mark.parametrize("name", sorted(CODECS))
def test_the_shortest_sounds_have_their_length(name: str, samples: int) -> None:
    heard = coded(np.full(samples, 0.1, dtype=np.float32), name, 1.0)
    assert heard.shape == (samples,) and np.isfinite(heard).all()


def test_rows_are_coded_within_their_length_and_the_callers_stay() -> None:
    waves = torch.from_numpy(np.stack([sweep(0.5)] * 3))
    waves[2, 4_000:] = 0.0
    lengths, before = torch.tensor([8_000, 8_000, 4_000]), waves.clone()
    distort = WaveformAugmentation(AugmentConfig(codec_probability=1.0), lambda *_: [], None, RATE_HZ)
    heard = distort(waves, lengths, "abc", random.Random(3))
    assert torch.equal(waves, before)
    assert not any(torch.allclose(new, old, atol=1e-3) for new, old in zip(heard, before, strict=True))
    assert not heard[2, 4_000:].any()
    assert torch.equal(heard, distort(waves, lengths, "abc", random.Random(3)))
