"""Resampling: any split is the whole, no delay, and what scipy says."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_service.audio.resample import Resampler
from tests.audio.samples import chirp

RATES = [8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 47_999, 48_000]


@pytest.mark.parametrize("rate", RATES)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 8_000), max_size=40))
def test_any_split_equals_resampling_the_whole(rate: int, cuts: list[int]) -> None:
    samples = np.ascontiguousarray(chirp(1.0, rate)[:8_000, 0])
    resampler = Resampler(rate)
    pieces = [resampler.push(piece) for piece in np.split(samples, sorted(cuts))]
    whole = soxr.resample(samples, rate, 16_000, "HQ")
    np.testing.assert_array_equal(np.concatenate([*pieces, resampler.flush()]), whole)


@pytest.mark.parametrize("rate", RATES)
def test_one_sample_at_a_time_equals_resampling_the_whole(rate: int) -> None:
    samples = np.ascontiguousarray(chirp(1.0, rate)[:3_000, 0])
    resampler = Resampler(rate)
    pieces = [resampler.push(samples[i : i + 1]) for i in range(len(samples))]
    np.testing.assert_array_equal(
        np.concatenate([*pieces, resampler.flush()]), soxr.resample(samples, rate, 16_000, "HQ")
    )


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("n", [0, 1, 10, 100, 12_345])
def test_n_samples_give_n_times_the_ratio(rate: int, n: int) -> None:
    resampler = Resampler(rate)
    total = len(resampler.push(np.zeros(n, np.float32))) + len(resampler.flush())
    assert abs(total - n * 16_000 / rate) <= 0.5 + 1e-9


@pytest.mark.parametrize("rate", [8_000, 24_000, 32_000, 48_000])
def test_a_tone_comes_out_where_scipy_puts_it(rate: int) -> None:
    samples = np.ascontiguousarray(chirp(1.0, rate)[:, 0])
    resampler = Resampler(rate)
    got = np.concatenate([resampler.push(samples), resampler.flush()])
    divisor = np.gcd(rate, 16_000)
    expected = scipy.signal.resample_poly(samples.astype(float), 16_000 // divisor, rate // divisor)
    # Away from the edges, and up to the noise near the two filters' different edges of the band.
    assert np.abs(got - expected)[500:-500].max() < 0.03
    assert np.corrcoef(got, expected)[0, 1] > 0.999
    lags = [np.dot(got[50:-50], expected[50 + lag : len(expected) - 50 + lag]) for lag in (-1, 0, 1)]
    assert int(np.argmax(lags)) == 1


def test_sixteen_kilohertz_passes_through_untouched() -> None:
    samples = np.ascontiguousarray(chirp()[:, 0])
    resampler = Resampler(16_000)
    np.testing.assert_array_equal(resampler.push(samples), samples)
    assert len(resampler.flush()) == 0
