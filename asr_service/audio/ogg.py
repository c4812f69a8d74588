"""Ogg (RFC 3533): pages to packets, with Opus or Vorbis inside; chained streams follow one another.

Strict: a page with a wrong checksum, a missing page, or several streams at once is an error, for words must not go
missing in silence. A stream cut off in the middle of a page is decoded up to there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr_service.audio.buffer import ByteBuffer
from asr_service.audio.limits import AudioLimits
from asr_service.audio.opus import OpusLink
from asr_service.audio.sniff import describe
from asr_service.audio.source import Pcm, invalid
from asr_service.audio.vorbis import VorbisLink
from asr_service.types import AudioFormat

_PAGE_HEADER = struct.Struct("<4sBBqIIIB")
_CONTINUED, _FIRST, _LAST = 1, 2, 4
_NO_GRANULE = -1
_MAX_EMPTY_LINKS = 8
"""Chained streams without audio in a row: each costs far more than its few bytes, and nothing holds its sender back."""
_MIN_LINK_S = 0.02
"""Audio that makes a chained stream worth its cost: the usual packet."""
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Page:
    """One page: `lacing` are the segment sizes, `granule` counts samples up to the last packet that ends here."""

    flags: int
    granule: int
    serial: int
    sequence: int
    lacing: bytes
    body: bytes


class Link(Protocol):
    """The codec of one logical stream."""

    @property
    def rate_hz(self) -> int: ...

    @property
    def needs_header(self) -> bool:
        """True until all header packets have been given."""
        ...

    def header(self, packet: bytes) -> None: ...

    def page(self, packets: list[bytes], granule: int | None, last: bool) -> Iterator[NDArray[np.float32]]:
        """Decode the packets that end on one page, and trim what its granule position says is no audio."""
        ...


def page_checksum(page: bytes) -> int:
    """CRC-32 as Ogg has it: polynomial 0x04C11DB7, most significant bit first, from 0, not inverted.

    zlib's runs over the same polynomial with the bits of every byte mirrored, and from and to the inverse.
    """
    mirrored = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED_BITS), "big")


class OggSource:
    """Raises InvalidAudio, RateMismatch or ChannelMismatch."""

    def __init__(self, declared: AudioFormat, limits: AudioLimits) -> None:
        self._declared = declared
        self._limits = limits
        self._buffer = ByteBuffer()
        self._link: Link | None = None
        self._serial = 0
        self._next_sequence = 0
        self._ended = False
        self._samples = 0
        self._empty_links = 0
        self._partial = bytearray()
        self._partial_open = False
        self._metadata_bytes = 0

    @property
    def dropped_bytes(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Pcm]:
        self._buffer.append(data)
        while (page := self._next_page()) is not None:
            yield from self._read(page)

    def finish(self) -> Iterator[Pcm]:
        if self._link is None or self._link.needs_header:
            raise invalid("Ogg", "ends before its headers do")
        yield from ()

    def _next_page(self) -> Page | None:
        head = self._buffer.peek(_PAGE_HEADER.size)
        if head[:4] != b"OggS"[: len(head)]:
            where = "not an Ogg file" if self._link is None else "lost: no page where one must begin"
            raise invalid("Ogg", f"{where}; {describe(head)}")
        if len(head) < _PAGE_HEADER.size:
            return None
        _, version, flags, granule, serial, sequence, checksum, segments = _PAGE_HEADER.unpack(head)
        if version != 0:
            raise invalid("Ogg", f"page version {version} is not known; 0 is")
        lacing = self._buffer.peek(segments, _PAGE_HEADER.size)
        size = _PAGE_HEADER.size + segments + sum(lacing)
        if len(lacing) < segments or len(self._buffer) < size:
            return None
        page = self._buffer.take(size)
        if page_checksum(page[:22] + bytes(4) + page[26:]) != checksum:
            raise invalid("Ogg", f"page {sequence} is damaged: its checksum is wrong")
        return Page(flags, granule, serial, sequence, lacing, page[_PAGE_HEADER.size + segments :])

    def _read(self, page: Page) -> Iterator[Pcm]:
        if page.flags & _FIRST:
            self._begin(page)
        elif self._link is None or page.serial != self._serial:
            raise invalid("Ogg", f"page {page.sequence} belongs to a stream that has not begun")
        if page.sequence != self._next_sequence:
            raise invalid("Ogg", f"page {self._next_sequence} is missing (page {page.sequence} came)")
        self._next_sequence = (page.sequence + 1) & 0xFFFFFFFF
        if self._ended:
            raise invalid("Ogg", f"page {page.sequence} comes after the last page of its stream")
        self._ended = bool(page.flags & _LAST)
        if bool(page.flags & _CONTINUED) != self._partial_open:
            raise invalid("Ogg", f"page {page.sequence} does not go on where the page before it stopped")
        packets = []
        for packet in self._packets(page):
            if self._link is None:
                self._link = self._open_link(packet)
            elif self._link.needs_header:
                self._link.header(packet)
            else:
                packets.append(packet)
        link = self._link
        if link is None:
            raise invalid("Ogg", "its first page holds no whole packet")
        if packets:
            granule = page.granule if page.granule != _NO_GRANULE else None
            for samples in link.page(packets, granule, self._ended):
                self._samples += len(samples)
                yield Pcm(samples, link.rate_hz)

    def _begin(self, page: Page) -> None:
        if self._link is not None:
            self._end_link(self._link)
        self._link = None
        self._serial, self._next_sequence = page.serial, page.sequence
        self._ended = False
        self._samples = 0
        self._partial.clear()
        self._partial_open = False

    def _end_link(self, link: Link) -> None:
        if not self._ended and not self._samples:
            raise invalid("Ogg", "several streams at once; one audio stream, or several one after another, are read")
        if self._samples >= _MIN_LINK_S * link.rate_hz:
            self._empty_links = self._metadata_bytes = 0
            return
        self._empty_links += 1
        if self._empty_links > _MAX_EMPTY_LINKS:
            raise invalid(
                "Ogg",
                f"more than {_MAX_EMPTY_LINKS} chained streams in a row with less than {_MIN_LINK_S:g} s of audio each",
            )

    def _open_link(self, packet: bytes) -> Link:
        if packet.startswith(b"OpusHead"):
            return OpusLink(packet, self._declared)
        if packet.startswith(b"\x01vorbis"):
            return VorbisLink(packet, self._declared)
        raise invalid("Ogg", f"holds neither Opus nor Vorbis: its first packet begins with {packet[:8]!r}")

    def _packets(self, page: Page) -> Iterator[bytes]:
        """Packets that end on this page. Of long header packets (comments with pictures) only the beginning is kept."""
        start = 0
        for size in page.lacing:
            in_header = self._link is None or self._link.needs_header
            segment = page.body[start : start + size]
            start += size
            if in_header:
                self._metadata_bytes += size
                if self._metadata_bytes > self._limits.max_metadata_bytes:
                    raise invalid("Ogg", f"headers of more than {self._limits.max_metadata_bytes} bytes")
                segment = segment[: self._limits.max_header_bytes - len(self._partial)]
            elif len(self._partial) + size > self._limits.max_packet_bytes:
                raise invalid("Ogg", f"a packet of more than {self._limits.max_packet_bytes} bytes")
            self._partial += segment
            self._partial_open = size == 255
            if not self._partial_open:
                packet = bytes(self._partial)
                self._partial.clear()
                yield packet
