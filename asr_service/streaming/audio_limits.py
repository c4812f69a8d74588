"""The decoders' bounds, from the settings (which know nothing of the audio package)."""

from __future__ import annotations

import dataclasses

from asr_service.audio import AudioLimits
from asr_service.config import AudioSettings, StreamSettings

# A stream is ended by its session, with finals and STREAM_TOO_LONG. Its decoder must not refuse the audio before that.
# The audio of a unary call is refused by its decoder, with AUDIO_TOO_LONG. Its session must not end it before that.
MARGIN_S = 60.0


def audio_limits(audio: AudioSettings, *, max_duration_s: float) -> AudioLimits:
    return AudioLimits(
        max_duration_s=max_duration_s,
        max_header_bytes=audio.max_header_bytes,
        max_metadata_bytes=audio.max_metadata_bytes,
        max_riff_chunks=audio.max_riff_chunks,
        max_packet_bytes=audio.max_packet_bytes,
    )


def stream_limits(audio: AudioSettings, stream: StreamSettings) -> AudioLimits:
    return audio_limits(audio, max_duration_s=stream.max_stream_s + MARGIN_S)


def unary_settings(stream: StreamSettings) -> StreamSettings:
    """Of the session of a unary call: `max_unary_s` bounds it, however short streams must be."""
    return dataclasses.replace(stream, max_stream_s=stream.max_unary_s + MARGIN_S)
