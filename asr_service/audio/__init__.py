"""Audio bytes to 16 kHz mono float32: one decoder for streams, unary calls and files."""

from asr_service.audio.file import decode_bytes, read_file
from asr_service.audio.limits import (
    MAX_CHANNELS,
    MAX_SOURCE_RATE_HZ,
    MIN_SOURCE_RATE_HZ,
    AudioLimits,
)
from asr_service.audio.stream import StreamDecoder

__all__ = [
    "MAX_CHANNELS",
    "MAX_SOURCE_RATE_HZ",
    "MIN_SOURCE_RATE_HZ",
    "AudioLimits",
    "StreamDecoder",
    "decode_bytes",
    "read_file",
]
