"""Numbers that bound what audio is taken, all in one place."""

from __future__ import annotations

from dataclasses import dataclass

MIN_SOURCE_RATE_HZ = 8_000
MAX_SOURCE_RATE_HZ = 48_000
MAX_CHANNELS = 8

MAX_ABS_SAMPLE = 100.0
"""A float sample beyond this is no audio, but another encoding read as float or integers that were never scaled, whose
peaks in speech are thousands. Ten times full scale is still recognised well."""

SNIFF_BYTES = 8_192
"""What an unspecified encoding is recognised by; two of the largest MP3 frames (1,441 bytes) lie well inside."""


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """Bounds of one decoded stream or file.

    Attributes:
        max_duration_s: decoded time at which `AudioTooLong` is raised, while decoding.
        max_header_bytes: the most that is held of a header before it is understood (Vorbis set-up headers are largest).
        max_metadata_bytes: tags, pictures and unknown chunks skipped, never held, with no audio between them.
        max_riff_chunks: chunks of a WAV before its data.
        max_packet_bytes: the largest codec packet or frame that is held until it is complete.
    """

    max_duration_s: float = 3_600.0
    max_header_bytes: int = 256 * 1024
    max_metadata_bytes: int = 16 * 1024 * 1024
    max_riff_chunks: int = 256
    max_packet_bytes: int = 1024 * 1024

    def __post_init__(self) -> None:
        if not self.max_duration_s > 0:
            raise ValueError(f"max_duration_s must be positive, not {self.max_duration_s!r}")
        for name in ("max_header_bytes", "max_riff_chunks", "max_packet_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        if self.max_metadata_bytes < 0:
            raise ValueError(f"max_metadata_bytes must not be negative, but is {self.max_metadata_bytes!r}")
        if self.max_header_bytes < SNIFF_BYTES:
            raise ValueError(f"max_header_bytes must be at least {SNIFF_BYTES}, not {self.max_header_bytes!r}")
