"""An estimate of the signal-to-noise ratio from the samples alone, good enough to sort recordings into bins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from asr_service.config import Settings
from asr_service.errors import AsrError
from asr_service.evaluation.breakdown import SNR_FIELD
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.waveform import read_waveform
from asr_service.types import SAMPLE_RATE_HZ

FRAME_SAMPLES = SAMPLE_RATE_HZ // 50  # 20 ms
NOISE_PERCENTILE, SPEECH_PERCENTILE = 10, 90
LOWEST_DB, HIGHEST_DB = -5.0, 60.0


def estimate_snr_db(samples: NDArray[np.float32]) -> float | None:
    """Ratio of speech power to noise power in decibels, within [LOWEST_DB, HIGHEST_DB]; samples (n,) at 16 kHz.

    The power of 20 ms frames at its 10th percentile is taken for noise (a pause), at its 90th for speech and noise
    together. Where nobody pauses, or the noise comes in bursts, it is too low. None for silence and for
    less than half a second.
    """
    frames = len(samples) // FRAME_SAMPLES
    if frames < 25:
        return None
    power = np.square(samples[: frames * FRAME_SAMPLES], dtype=np.float64).reshape(frames, -1).mean(axis=1)
    noise, loud = np.percentile(power, [NOISE_PERCENTILE, SPEECH_PERCENTILE])
    if loud <= 0:
        return None
    ratio = (loud - noise) / max(noise, 1e-12)
    return float(np.clip(10 * np.log10(max(ratio, 1e-12)), LOWEST_DB, HIGHEST_DB))


def with_snr(references: Iterable[Reference], settings: Settings) -> Iterator[Reference]:
    """The same references with SNR_FIELD, where the manifest has none and the audio can be read."""
    for reference in references:
        estimate = None
        if SNR_FIELD not in reference.fields and reference.audio_path is not None:
            try:
                estimate = estimate_snr_db(read_waveform(reference, settings))
            except (AsrError, OSError):
                estimate = None  # no breakdown for this one; recognising it says what is wrong with it
        if estimate is None:
            yield reference
        else:
            yield replace(reference, fields={**reference.fields, SNR_FIELD: round(estimate, 1)})
