"""The clips of manifests, decoded, with the times of their words; aligned once and then read from a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from asr_service.bench.playlist import Clip
from asr_service.config import Settings
from asr_service.errors import InvalidAudio
from asr_service.evaluation.forced_alignment import AlignmentCache, ForcedAligner
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.waveform import read_waveform

FULL_SCALE = 32767


def load_clips(
    references: Iterable[Reference], settings: Settings, cache: AlignmentCache, aligner: Callable[[], ForcedAligner]
) -> list[Clip]:
    """Clips in order. `aligner` is asked for only where a clip's words are not in the cache.

    Raises OSError; InvalidAudio, also for a clip that cannot hold its words; what `aligner` raises.
    """
    clips: list[Clip] = []
    loaded: ForcedAligner | None = None
    for reference in references:
        waveform = read_waveform(reference, settings)
        words = cache.get(waveform, reference.text)
        if words is None:
            loaded = loaded or aligner()
            try:
                words = loaded(waveform, reference.text)
            except InvalidAudio as error:
                raise InvalidAudio(f"{reference.utterance_id}: {error.message}") from error
            cache.put(waveform, reference.text, words)
        clips.append(Clip(reference, linear16(waveform), words))
    return clips


def needed(references: Sequence[Reference], *, seconds: float, streams: int) -> list[Reference]:
    """An even choice of references, enough that neighbouring streams seldom play the same; in order.

    Reading thousands of clips for a minute of eight streams would take longer than the minute.
    """
    lengths = [reference.duration_s for reference in references if reference.duration_s]
    typical_s = float(np.median(lengths)) if lengths else 5.0
    wanted = max(1, round(1 + seconds / typical_s) * streams)
    step = max(1, len(references) // wanted)
    return list(references[::step])


def linear16(waveform: NDArray[np.float32]) -> bytes:
    return np.round(np.clip(waveform, -1, 1) * FULL_SCALE).astype("<i2").tobytes()
