"""Speed perturbation (Ko, Peddinti, Povey, Khudanpur, "Audio augmentation for speech recognition", 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from torch import Tensor

from asr_service.torchaudio_guard import torchaudio


def change_speed(waves: Tensor, speed: float) -> Tensor:
    """Play (..., N) samples `speed` times as fast, pitch and all: (..., ⌈N / speed⌉)."""
    ratio = _ratio(speed)
    if ratio == 1:
        return waves
    changed: Tensor = torchaudio.functional.resample(waves, ratio.numerator, ratio.denominator)
    return changed


def changed_lengths(lengths: Sequence[int], speed: float) -> list[int]:
    """How many samples `change_speed` makes of recordings of so many each."""
    ratio = _ratio(speed)
    if ratio == 1:
        return list(lengths)
    # Rounded as torchaudio does it, in single precision.
    wanted = np.array([length * ratio.denominator / ratio.numerator for length in lengths], dtype=np.float32)
    return [int(length) for length in np.ceil(wanted)]


def _ratio(speed: float) -> Fraction:
    """Small numbers, for the resampling filter has as many phases as they have."""
    return Fraction(speed).limit_denominator(100)
