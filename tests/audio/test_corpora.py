"""Real recordings: what is served hears what training read. Skipped where the corpora are absent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray

from asr_service.audio import read_file
from asr_service.types import AudioFormat
from tests.audio.samples import LIMITS, decode_pieces

SPEECH = Path(os.environ.get("ASR_SPEECH_DIR", Path(__file__).parents[2].parent / "shared" / "speech"))
RECORDINGS = 12


def recordings() -> list[Path]:
    manifest = SPEECH / "dev.jsonl"
    if not manifest.exists():
        return []
    lines = manifest.read_text().splitlines()
    wideband = [line for line in map(json.loads, lines) if line["corpus"] != "fsdd_8k"]
    return [SPEECH / line["audio_filepath"] for line in wideband[:: len(wideband) // RECORDINGS]]


pytestmark = pytest.mark.skipif(not recordings(), reason="the speech corpora are not here")


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    mel = librosa.feature.melspectrogram(y=samples, sr=16_000, n_fft=400, hop_length=160, n_mels=80)
    return np.log(np.maximum(mel, 1e-8))


@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.stem)
def test_a_recording_is_heard_as_training_read_it(path: Path) -> None:
    expected, rate = sf.read(path, dtype="float32")
    assert rate == 16_000
    got = read_file(path, limits=LIMITS)
    assert len(got) == len(expected)
    likeness = {lag: float(np.dot(got[10 + lag : len(got) - 10 + lag], expected[10:-10])) for lag in range(-5, 6)}
    assert abs(max(likeness, key=lambda lag: likeness[lag])) <= 1
    # In nats; the quantisation of these 15 kbit/s is far above it.
    difference = np.abs(log_mel(got) - log_mel(expected))
    assert difference.mean() < 0.1


@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.stem)
def test_a_recording_in_20_ms_pieces_equals_the_file(path: Path) -> None:
    data = path.read_bytes()
    # At 15 kbit/s some 40 bytes are 20 ms.
    pieces = [data[start : start + 40] for start in range(0, len(data), 40)]
    np.testing.assert_array_equal(decode_pieces(pieces, AudioFormat()), read_file(path, limits=LIMITS))
