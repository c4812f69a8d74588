"""Energies for voice activity: what a telephone does not carry is not missed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from asr_service.engine.runner import ModelRunner
from asr_service.engine.voice_activity import VoiceActivity
from asr_service.model.bundle import load_bundle

from .conftest import make_tiny_bundle


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> ModelRunner:
    return ModelRunner(load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle"))), streams=1, threads=1)


def energies(runner: ModelRunner, pcm: np.ndarray) -> np.ndarray:
    levels = runner.features(pcm.astype(np.float32), np.zeros(0, np.float32), last=True)[1]
    return levels.reshape(len(levels), -1).mean(axis=1)


def noise(level: float) -> tuple[np.ndarray, np.ndarray]:
    """Half a second of white noise of this root mean square, and the same as a telephone carries it."""
    wide = np.random.default_rng(5).normal(0, level, 8_000)
    band = signal.butter(10, 3_900, output="sos", fs=16_000)
    return wide, signal.sosfiltfilt(band, wide)


def test_a_telephones_band_does_not_lower_the_energy(runner: ModelRunner) -> None:
    wide, telephone = noise(0.01)
    assert energies(runner, telephone) == pytest.approx(energies(runner, wide), abs=0.3)


def test_a_quiet_telephone_call_is_heard(runner: ModelRunner) -> None:
    _, telephone = noise(0.002)
    observed = energies(runner, telephone)
    voice = VoiceActivity()
    assert any(voice.observe(observed[i : i + 8]) for i in range(0, len(observed), 8))
