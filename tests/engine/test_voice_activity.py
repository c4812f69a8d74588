"""Who speaks when: the two detectors, one decision a tick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.numpy import save_file

from asr_service.engine.frames import TICK_FRAMES
from asr_service.engine.voice_activity import (
    BANDS,
    INPUTS,
    LOWEST,
    VOICE_FILE,
    NeuralVoiceActivity,
    VoiceActivity,
    VoiceBands,
    VoiceDetector,
    VoiceNetwork,
    tick_inputs,
    voice_detectors,
)
from asr_service.errors import BundleError, ConfigError
from asr_service.features import FeatureConfig, LogMel
from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR
from training.voice_activity import Detector


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(3)
    return Detector()


@pytest.fixture
def bundle(tmp_path: Path, detector: Detector) -> Path:
    save_file(detector.weights(), tmp_path / VOICE_FILE)
    return tmp_path


def levels(ticks: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-15, -2, (ticks * TICK_FRAMES, BANDS)).astype(np.float32)


def test_network_is_overruled_where_nothing_stands_out_from_the_room(bundle: Path) -> None:
    observer = NeuralVoiceActivity(VoiceNetwork.load(bundle / VOICE_FILE), threshold=-np.inf)
    room = np.full((TICK_FRAMES * 80, BANDS), -5.0, np.float32)
    heard = decisions(observer, room)
    assert all(heard[:40]) and not any(heard[60:])
    assert observer.observe(room[:TICK_FRAMES] + 1.0)


def decisions(observer: VoiceDetector, heard: np.ndarray) -> list[bool]:
    return [observer.observe(heard[i : i + TICK_FRAMES]) for i in range(0, len(heard), TICK_FRAMES)]


def logits_of(network: VoiceNetwork, heard: np.ndarray) -> list[float]:
    state = np.zeros(len(network.to_output), np.float32)
    logits = []
    for row in tick_inputs(heard):
        logit, state = network.step(row, state)
        logits.append(logit)
    return logits


def test_network_step_by_step_equals_the_trained_one(bundle: Path, detector: Detector) -> None:
    heard = levels(40)
    with torch.inference_mode():
        expected = detector(torch.from_numpy(tick_inputs(heard)).unsqueeze(0))[0]
    assert logits_of(VoiceNetwork.load(bundle / VOICE_FILE), heard) == pytest.approx(expected.tolist(), abs=1e-5)


def test_streams_share_weights_and_no_state(bundle: Path) -> None:
    heard = levels(60)
    network = VoiceNetwork.load(bundle / VOICE_FILE)
    middle = float(np.median(logits_of(network, heard)))
    alone = decisions(NeuralVoiceActivity(network, threshold=middle), heard)
    assert 10 < sum(alone) < 50
    one, other = (NeuralVoiceActivity(network, threshold=middle) for _ in range(2))
    together = []
    for i in range(0, len(heard), TICK_FRAMES):
        together.append(one.observe(heard[i : i + TICK_FRAMES]))
        other.observe(-heard[i : i + TICK_FRAMES])
    assert together == alone


def test_bundle_without_weights_has_the_energy_detector(tmp_path: Path) -> None:
    assert isinstance(voice_detectors(tmp_path)(), VoiceActivity)


def test_wrong_weights_are_refused_by_name(bundle: Path, detector: Detector) -> None:
    path = bundle / VOICE_FILE
    path.write_bytes(b"no tensors")
    with pytest.raises(BundleError, match="not a safetensors file"):
        voice_detectors(bundle)
    weights = detector.weights()
    for name, wrong in (("cell.weight_ih_l0", np.zeros((9, INPUTS), np.float32)), ("output.bias", np.full(1, np.nan))):
        save_file(weights | {name: wrong.astype(np.float32)}, path)
        with pytest.raises(BundleError, match=name):
            voice_detectors(bundle)
    save_file({"other": np.zeros(3, np.float32)}, path)
    with pytest.raises(BundleError, match="other"):
        voice_detectors(bundle)


def test_bands_hear_nothing_above_a_telephones_band() -> None:
    bands = VoiceBands(LogMel().spectrogram.mel_scale.fb.numpy(), 16_000)
    quiet = np.zeros((3, 80), np.float32)
    above = quiet.copy()
    above[:, 64:] = 9.0
    assert np.array_equal(bands(above), bands(quiet))
    assert bands(np.full((3, 80), -7.0, np.float32)) == pytest.approx(np.full((3, BANDS), -7.0), abs=1e-4)


def test_energy_detector_follows_a_room_that_becomes_louder() -> None:
    observer = VoiceActivity()
    room = np.full((TICK_FRAMES * 100, BANDS), -12.0, np.float32)
    room[TICK_FRAMES * 30 :] += 4.0
    heard = decisions(observer, room)
    assert not any(heard[:30])
    assert all(heard[30:70])  # as loud as speech, at first
    assert not any(heard[80:])
    assert observer.observe(room[-TICK_FRAMES:] + 2.0)


@pytest.fixture(scope="module")
def shipped() -> Callable[[], VoiceDetector]:
    assert (SHIPPED_DIR / DEFAULT_MODEL / VOICE_FILE).is_file()
    return voice_detectors(SHIPPED_DIR / DEFAULT_MODEL)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    pcm, rate = soundfile.read(SHIPPED_DIR.parent / "samples" / "demo.flac")
    assert rate == 16_000
    return pcm


def share_of_speech(new: Callable[[], VoiceDetector], wave: np.ndarray, *, skipped: int = 0) -> float:
    front_end = LogMel()
    bands = VoiceBands(front_end.spectrogram.mel_scale.fb.numpy(), 16_000)
    with torch.inference_mode():
        heard = bands(front_end.whole(torch.from_numpy(wave.astype(np.float32))).numpy())
    return float(np.mean(decisions(new(), heard[: len(heard) // TICK_FRAMES * TICK_FRAMES])[skipped:]))


@pytest.mark.parametrize("level", [0.0, 1e-4, 0.003, 0.1])
def test_noise_is_no_speech_however_loud_once_the_room_is_known(
    shipped: Callable[[], VoiceDetector], level: float
) -> None:
    noise = np.random.default_rng(1).normal(0, 1, 16_000 * 12) * level
    assert share_of_speech(shipped, noise, skipped=50) < 0.15


@pytest.mark.parametrize("gain", [1.0, 0.03])
def test_speech_is_heard_however_quiet(shipped: Callable[[], VoiceDetector], speech: np.ndarray, gain: float) -> None:
    assert share_of_speech(shipped, speech * gain) > 0.5


def test_speech_is_heard_in_noise_and_the_noise_after_it_is_not(
    shipped: Callable[[], VoiceDetector], speech: np.ndarray
) -> None:
    level = np.sqrt((speech**2).mean()) * 10**-0.75  # 15 dB
    silent = np.concatenate([speech, np.zeros(16_000 * 3)])
    noisy = silent + np.random.default_rng(2).normal(0, level, len(silent))
    assert share_of_speech(shipped, noisy) == pytest.approx(share_of_speech(shipped, silent), abs=0.1)


def test_a_front_end_with_too_few_mel_bins_is_named() -> None:
    front_end = LogMel(FeatureConfig(n_mels=20))
    with pytest.raises(ConfigError, match=r"n_mels is 20: \d+ mel bins below 4 kHz, voice activity needs 16"):
        VoiceBands(front_end.spectrogram.mel_scale.fb.numpy(), 16_000)


def test_dither_is_no_speech_though_it_stands_out_from_digital_silence() -> None:
    observer = VoiceActivity()
    silence = np.full((TICK_FRAMES * 60, BANDS), -30.0, np.float32)
    assert not any(decisions(observer, silence))
    assert not observer.observe(np.full((TICK_FRAMES, BANDS), LOWEST, np.float32))
    assert observer.observe(np.full((TICK_FRAMES, BANDS), LOWEST + 2.0, np.float32))
