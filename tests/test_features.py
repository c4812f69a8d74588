"""The front end: the same numbers whole and streamed, and librosa's numbers."""

from __future__ import annotations

import itertools
import math

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_service.features import STEP_FRAMES, FeatureConfig, LogMel


@pytest.fixture(scope="module")
def front_end() -> LogMel:
    front_end = LogMel()
    generator = torch.Generator().manual_seed(5)
    front_end.mean = torch.randn(80, generator=generator) - 6
    front_end.std = torch.rand(80, generator=generator) + 1
    return front_end


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


@settings(max_examples=60)
@given(
    samples=st.integers(0, 9_000),
    cuts=st.lists(st.integers(0, 9_000), max_size=12),
)
def test_any_chunking_gives_the_whole_waveforms_features(front_end: LogMel, samples: int, cuts: list[int]) -> None:
    waveform = noise(samples)
    edges = [0, *sorted(min(cut, samples) for cut in cuts), samples]
    carry, parts = None, []
    for begin, end in itertools.pairwise(edges):
        features, carry = front_end.step(waveform[begin:end], carry)
        assert len(carry) < front_end.config.n_fft + STEP_FRAMES * front_end.config.hop_length
        assert len(features) % STEP_FRAMES == 0
        parts.append(features)
    parts.append(front_end.step(waveform[:0], carry, last=True)[0])
    streamed, whole = torch.cat(parts), front_end.whole(waveform)
    assert streamed.shape == whole.shape == (front_end.frames(samples), 80)
    torch.testing.assert_close(streamed, whole, rtol=0, atol=1e-5)
    at_once, carry = front_end.step(waveform, None)
    at_once = torch.cat([at_once, front_end.step(waveform[:0], carry, last=True)[0]])
    assert torch.equal(streamed, at_once), "any two splits agree to the last bit"


def test_one_sample_at_a_time_gives_the_whole_waveforms_features(front_end: LogMel) -> None:
    waveform = noise(1_300)
    carry, parts = None, []
    for sample in waveform:
        features, carry = front_end.step(sample.view(1), carry)
        parts.append(features)
    parts.append(front_end.step(waveform[:0], carry, last=True)[0])
    torch.testing.assert_close(torch.cat(parts), front_end.whole(waveform), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (511, 0), (512, 1), (671, 1), (672, 2), (16_000, 97)])
def test_only_frames_that_are_wholly_covered_are_given(front_end: LogMel, samples: int, frames: int) -> None:
    assert front_end.frames(samples) == frames
    assert front_end.whole(noise(samples)).shape == (frames, 80)


def test_mel_filters_are_librosas(front_end: LogMel) -> None:
    ours = front_end.spectrogram.mel_scale.fb.numpy().T
    np.testing.assert_allclose(ours, librosa.filters.mel(sr=16_000, n_fft=512, n_mels=80), atol=1e-6)


@pytest.mark.parametrize("frequency_hz", [80.0, 440.0, 3_000.0])
def test_log_mel_values_are_librosas(frequency_hz: float) -> None:
    time_s = np.arange(16_000) / 16_000
    waveform = (0.3 * np.sin(2 * np.pi * frequency_hz * time_s) + noise(16_000).numpy() * 0.1).astype(np.float32)
    config = FeatureConfig()
    mel = librosa.feature.melspectrogram(
        y=waveform, sr=16_000, n_fft=512, win_length=400, hop_length=160, n_mels=80, center=False, window="hann"
    )
    ours = LogMel(config).whole(torch.from_numpy(waveform)).numpy()
    np.testing.assert_allclose(ours, np.log(mel + config.floor).T, rtol=0, atol=1e-3)


def test_features_are_normalised_by_the_stored_statistics(front_end: LogMel) -> None:
    waveform = noise(4_000)
    plain = LogMel().whole(waveform)
    torch.testing.assert_close(front_end.whole(waveform), (plain - front_end.mean) / front_end.std)


def test_a_batch_gives_the_features_of_each_row(front_end: LogMel) -> None:
    rows = torch.stack([noise(5_000, seed) for seed in range(3)])
    batched = front_end.whole(rows)
    for row, features in zip(rows, batched, strict=True):
        torch.testing.assert_close(front_end.whole(row), features, rtol=0, atol=1e-5)


def test_digital_silence_gives_finite_features(front_end: LogMel) -> None:
    assert torch.isfinite(front_end.whole(torch.zeros(8_000))).all()
    floor = LogMel().whole(torch.zeros(8_000))
    torch.testing.assert_close(floor, torch.full_like(floor, math.log(1e-7)))
