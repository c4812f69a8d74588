"""The four-byte header of an MPEG audio frame (ISO/IEC 11172-3 section 2.4.1.3, 13818-3 for the lower rates)."""

from __future__ import annotations

from dataclasses import dataclass

HEADER_BYTES = 4

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS_V1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_V2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG_1, _LAYER_III = 3, 1


@dataclass(frozen=True, slots=True)
class MpegHeader:
    """`size` is the whole frame's, in bytes; `samples` is per channel."""

    version: int
    rate_hz: int
    channels: int
    size: int
    samples: int

    def continues(self, other: MpegHeader) -> bool:
        """True if both can be frames of one stream: bitrate and channel mode may change, the rest may not."""
        return (self.version, self.rate_hz) == (other.version, other.rate_hz)

    @property
    def side_info_bytes(self) -> int:
        """Size of layer III side information, after which a Xing or Info tag lies."""
        if self.version == _MPEG_1:
            return 17 if self.channels == 1 else 32
        return 9 if self.channels == 1 else 17


def parse_header(data: bytes) -> MpegHeader | None:
    """Return None where the first four bytes are no layer III frame header with a bitrate from the table."""
    if len(data) < HEADER_BYTES or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return None
    version, layer = (data[1] >> 3) & 3, (data[1] >> 1) & 3
    bitrate_index, rate_index, padding = data[2] >> 4, (data[2] >> 2) & 3, (data[2] >> 1) & 1
    # Emphasis 2 is reserved; layers I and II are not MP3; bitrate index 0 is "free format".
    if version == 1 or layer != _LAYER_III or rate_index == 3 or bitrate_index in (0, 15) or data[3] & 3 == 2:
        return None
    rate = _RATES[version][rate_index]
    table = _KBITS_V1 if version == _MPEG_1 else _KBITS_V2
    samples = 1152 if version == _MPEG_1 else 576
    size = samples // 8 * table[bitrate_index - 1] * 1000 // rate + padding
    return MpegHeader(version, rate, 1 if data[3] >> 6 == 3 else 2, size, samples)
