"""Vorbis in Ogg (Vorbis I specification, appendix A.2 for the granule positions)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from asr_service.audio.codec import PacketDecoder, to_float
from asr_service.audio.source import check_header, invalid
from asr_service.types import AudioFormat

_NAME = "Ogg Vorbis"
_IDENTIFICATION_BYTES = 30
# No vendor, no comments: what stands in the file's own may be megabytes of pictures.
_EMPTY_COMMENT = b"\x03vorbis" + bytes(8) + b"\x01"


class VorbisLink:
    """One logical Vorbis stream."""

    def __init__(self, identification: bytes, declared: AudioFormat) -> None:
        if len(identification) != _IDENTIFICATION_BYTES:
            raise invalid(_NAME, "its identification header has the wrong length")
        _, channels, self.rate_hz = struct.unpack_from("<IBI", identification, 7)
        check_header(declared, _NAME, (self.rate_hz,), channels)
        self._identification = identification
        self._comment_seen = False
        self._decoder: PacketDecoder | None = None
        self._position: int | None = None

    @property
    def needs_header(self) -> bool:
        return self._decoder is None

    def header(self, packet: bytes) -> None:
        if not self._comment_seen:
            if not packet.startswith(b"\x03vorbis"):
                raise invalid(_NAME, "its second packet is not the comment header")
            self._comment_seen = True
            return
        if not packet.startswith(b"\x05vorbis"):
            raise invalid(_NAME, "its third packet is not the set-up header")
        # Three headers in Xiph lacing: a count less one, the sizes of all but the last, then the headers.
        sizes = bytes([2, len(self._identification), len(_EMPTY_COMMENT)])
        extradata = sizes + self._identification + _EMPTY_COMMENT + packet
        self._decoder = PacketDecoder(_NAME, "vorbis", extradata)

    def page(self, packets: list[bytes], granule: int | None, last: bool) -> Iterator[NDArray[np.float32]]:
        """Yield (n, C) float32. The first page's granule position can cut the beginning, the last page's the end."""
        assert self._decoder is not None
        stretches = [to_float(samples) for packet in packets for samples in self._decoder.decode(packet)]
        total = sum(map(len, stretches))
        first, keep = 0, total
        if self._position is None:
            self._position = 0
            if granule is not None and not last:
                first = max(total - granule, 0)
                self._position = max(granule - total, 0) - first
        if last and granule is not None:
            keep = min(max(granule - self._position, 0), total)
        self._position += total
        for samples in stretches:
            kept = samples[max(first, 0) : max(keep, 0)]
            first -= len(samples)
            keep -= len(samples)
            if len(kept):
                yield kept
