"""The samples of one utterance: its file, or the part of it that the reference names."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_service.audio import AudioLimits, read_file
from asr_service.config import Settings
from asr_service.errors import InvalidAudio
from asr_service.evaluation.reference import Reference
from asr_service.streaming.audio_limits import stream_limits
from asr_service.types import SAMPLE_RATE_HZ

# Manifests round durations, and decoders differ by a frame: a part this close to the whole file is the whole file.
ROUNDING_S = 0.1
# What more of it is missing was cut off: a download or a copy that broke.
MISSING_S = 1.0


def read_waveform(reference: Reference, settings: Settings) -> NDArray[np.float32]:
    """16 kHz mono samples, shape (n,): those that the recogniser would make of the file itself.

    Raises:
        OSError; InvalidAudio, also for a part that lies behind the recording's end, or of which more than MISSING_S do.
    """
    if reference.audio_path is None:
        raise InvalidAudio("the manifest names no audio")
    waveform = _last_decoded(reference.audio_path, stream_limits(settings.audio, settings.stream))
    length_s = len(waveform) / SAMPLE_RATE_HZ
    start_s, duration_s = reference.offset_s, reference.duration_s
    if start_s and start_s >= length_s:
        raise InvalidAudio(f"the part from {start_s:g} s on lies behind the recording's end at {length_s:g} s")
    if duration_s is not None and start_s + duration_s > length_s + MISSING_S:
        raise InvalidAudio(f"the recording ends at {length_s:g} s, the manifest has {start_s + duration_s:g} s of it")
    if duration_s is None or start_s + duration_s > length_s - ROUNDING_S:
        return waveform[round(start_s * SAMPLE_RATE_HZ) :]
    return waveform[round(start_s * SAMPLE_RATE_HZ) : round((start_s + duration_s) * SAMPLE_RATE_HZ)]


# Segments of one long recording follow each other in a manifest: the last file stays decoded.
@functools.lru_cache(maxsize=1)
def _last_decoded(path: Path, limits: AudioLimits) -> NDArray[np.float32]:
    return read_file(path, limits=limits)
