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
        self._extradata = b""
        # Made for the first audio: a stream may have none.
        self._decoder: PacketDecoder | None = None
        self._position: int | None = None

    @property
    def needs_header(self) -> bool:
        return not self._extradata

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
        self._extradata = sizes + self._identification + _EMPTY_COMMENT + packet

    def page(self, packets: list[bytes], granule: int | None, last: bool) -> Iterator[NDArray[np.float32]]:
        """Yield (n, C) float32, packet by packet.

        The first page's granule position can cut the beginning, the last page's the end.
        """
        if self._decoder is None:
            self._decoder = self._new_decoder()
        first = 0
        if self._position is None:
            self._position = 0
            if granule is not None and not last:
                total = self._count(packets)
                first = max(total - granule, 0)
                self._position = max(granule - total, 0) - first
        end = max(granule - self._position, 0) if last and granule is not None else None
        for packet in packets:
            for decoded in self._decoder.decode(packet):
                kept = to_float(decoded)[first:end]
                self._position += len(decoded)
                first = max(first - len(decoded), 0)
                end = max(end - len(decoded), 0) if end is not None else None
                if len(kept):
                    yield kept

    def _new_decoder(self) -> PacketDecoder:
        return PacketDecoder(_NAME, "vorbis", self._extradata)

    def _count(self, packets: list[bytes]) -> int:
        """The samples of a stream's first packets, which only decoding tells.

        To decode a page at most twice is better than to hold what it decodes to: megabytes for a few bytes.
        """
        decoder = self._new_decoder()
        return sum(len(samples) for packet in packets for samples in decoder.decode(packet))
