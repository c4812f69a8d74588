"""Opus in Ogg (RFC 7845): decoded at 48 kHz by libopus, encoder delay and end padding cut off.

libopus rather than FFmpeg's own decoder: beside the 16 kHz decoding that training reads (libsndfile's) its
log-mel spectrogram is twice as close, most of all above 6 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from asr_service.audio.codec import PacketDecoder, to_float
from asr_service.audio.source import check_header, invalid
from asr_service.types import AudioFormat

OPUS_RATE_HZ = 48_000
_NAME = "Ogg Opus"
_HEAD_BYTES = 19


class OpusLink:
    """One logical Opus stream."""

    rate_hz = OPUS_RATE_HZ

    def __init__(self, head: bytes, declared: AudioFormat) -> None:
        if len(head) < _HEAD_BYTES or head[8] >> 4 != 0:
            raise invalid(_NAME, "its OpusHead is too short or of an unknown version")
        channels, family = head[9], head[18]
        if family == 0 and channels > 2:
            raise invalid(_NAME, f"{channels} channels in channel mapping family 0, which has 1 or 2")
        # Any declared rate is honest that names the decoder's or the original's.
        check_header(declared, _NAME, (OPUS_RATE_HZ, int.from_bytes(head[12:16], "little")), channels)
        self._skip = int.from_bytes(head[10:12], "little")
        self._position: int | None = None
        # With a pre-skip of 0, for FFmpeg would cut it off itself.
        self._extradata = head[:10] + b"\0\0" + head[12:]
        # Made for the first audio: a stream may have none, and it costs a thousand times its header.
        self._decoder: PacketDecoder | None = None
        self.needs_header = True

    def header(self, packet: bytes) -> None:
        if not packet.startswith(b"OpusTags"):
            raise invalid(_NAME, "its second packet is not OpusTags")
        self.needs_header = False

    def page(self, packets: list[bytes], granule: int | None, last: bool) -> Iterator[NDArray[np.float32]]:
        """Yield (n, C) float32, packet by packet: a small page may decode to many megabytes.

        The last page's granule position cuts the end (RFC 7845 section 4.4).
        """
        if self._decoder is None:
            self._decoder = PacketDecoder(_NAME, "libopus", self._extradata, {"request_sample_fmt": "flt"})
        total = sum(map(packet_samples, packets))
        if self._position is None:
            # A live recording may begin anywhere; only a page that is first and last at once begins at 0 for sure.
            self._position = 0 if last or granule is None else granule - total
        keep = total
        if last and granule is not None:
            keep = min(max(granule - self._position, 0), total)
        self._position += total
        for packet in packets:
            for decoded in self._decoder.decode(packet):
                kept = to_float(decoded)[self._skip : max(keep, 0)]
                self._skip = max(self._skip - len(decoded), 0)
                keep -= len(decoded)
                if len(kept):
                    yield kept


def packet_samples(packet: bytes) -> int:
    """The samples per channel at 48 kHz that a packet says it holds (RFC 6716 section 3.1).

    So a page's are known before they are decoded. Where the packet is damaged, its decoder finds out.
    """
    if not packet:
        return 0
    config = packet[0] >> 3
    if config < 12:  # SILK
        frame = (480, 960, 1_920, 2_880)[config & 3]
    elif config < 16:  # hybrid
        frame = (480, 960)[config & 1]
    else:  # CELT
        frame = (120, 240, 480, 960)[config & 3]
    match packet[0] & 3:
        case 0:
            return frame
        case 3:
            return frame * (packet[1] & 63) if len(packet) > 1 else 0
        case _:
            return 2 * frame
