"""Stateful resampling to 16 kHz."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from asr_service.types import SAMPLE_RATE_HZ


class Resampler:
    """Mono float32 at `rate_hz` to 16 kHz (libsoxr, high quality; 16 kHz passes through untouched).

    The output is sample for sample that of resampling the whole at once, for any split of the input: libsoxr works in
    blocks of its own. n input samples give round(n * 16000 / rate_hz) once flushed. At 8 to 48 kHz the filter
    holds back 40 to 120 ms.
    """

    def __init__(self, rate_hz: int) -> None:
        self._stream = (
            None
            if rate_hz == SAMPLE_RATE_HZ
            else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
        )

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shape (n,) to (m,), maybe empty."""
        if self._stream is None or len(samples) == 0:
            return samples
        return np.asarray(self._stream.resample_chunk(samples), dtype=np.float32)

    def flush(self) -> NDArray[np.float32]:
        """The rest, once, after which the resampler is spent."""
        if self._stream is None:
            return np.zeros(0, dtype=np.float32)
        return np.asarray(self._stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True), dtype=np.float32)
