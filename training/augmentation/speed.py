"""Speed perturbation (Ko, Peddinti, Povey, Khudanpur, "Audio augmentation for speech recognition", 2015)."""

from __future__ import annotations

from fractions import Fraction

from torch import Tensor

from asr_service.torchaudio_guard import torchaudio


def change_speed(waves: Tensor, speed: float) -> Tensor:
    """Play (..., N) samples `speed` times as fast, pitch and all: (..., ⌈N / speed⌉)."""
    ratio = _ratio(speed)
    if ratio == 1:
        return waves
    changed: Tensor = torchaudio.functional.resample(waves, ratio.numerator, ratio.denominator)
    return changed


def _ratio(speed: float) -> Fraction:
    """Small numbers, for the resampling filter has as many phases as they have."""
    return Fraction(speed).limit_denominator(100)
