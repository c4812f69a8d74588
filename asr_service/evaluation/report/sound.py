"""Recordings inside a report, as data URIs: as many as fit into a bound, the worst utterances first."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterable

import numpy as np

from asr_service.config import Settings
from asr_service.errors import AsrError
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.waveform import read_waveform
from asr_service.types import SAMPLE_RATE_HZ

# Of all recordings in one report, before base64 adds a third.
MAX_AUDIO_BYTES = 24 * 1024 * 1024
# What browsers play as it is.
PLAYABLE = {".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".opus": "audio/ogg", ".wav": "audio/wav"}


def data_uris(references: Iterable[Reference], *, max_bytes: int = MAX_AUDIO_BYTES) -> tuple[dict[str, str], list[str]]:
    """Recordings by utterance id, in the order given until `max_bytes` are full, and the ids that cannot be read.

    A whole file goes in as it is, a part of one as 16-bit PCM.
    """
    settings = Settings()
    left = max_bytes
    sounds: dict[str, str] = {}
    unreadable: list[str] = []
    for reference in references:
        if reference.audio_path is None:
            continue
        try:
            kind, content = _content(reference, settings, left)
        except (AsrError, OSError):
            unreadable.append(reference.utterance_id)
            continue
        if len(content) > left:
            break
        left -= len(content)
        sounds[reference.utterance_id] = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return sounds, unreadable


def _content(reference: Reference, settings: Settings, left: int) -> tuple[str, bytes]:
    assert reference.audio_path is not None
    kind = PLAYABLE.get(reference.audio_path.suffix.lower())
    size = reference.audio_path.stat().st_size
    if kind is not None and not reference.offset_s and size <= left and not _is_part(reference, settings):
        return kind, reference.audio_path.read_bytes()
    return "audio/wav", _as_wav(reference, settings)


def _is_part(reference: Reference, settings: Settings) -> bool:
    """A reference with a duration may name the beginning of a longer file."""
    if reference.duration_s is None:
        return False
    whole = read_waveform(Reference(reference.utterance_id, "", reference.audio_path), settings)
    return len(read_waveform(reference, settings)) < len(whole)


def _as_wav(reference: Reference, settings: Settings) -> bytes:
    samples = read_waveform(reference, settings)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
