"""FLAC (RFC 9639), read as it arrives: metadata, then frame by frame.

A frame's length is written nowhere: it ends where the header of the next one begins, which its checksum and its
consecutive number tell. So a frame is decoded when the first bytes of the next have arrived.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_service.audio.buffer import ByteBuffer
from asr_service.audio.codec import PacketDecoder, to_float
from asr_service.audio.flac_frame import MAX_HEADER_BYTES, FrameHeader, parse_header
from asr_service.audio.limits import AudioLimits
from asr_service.audio.sniff import describe
from asr_service.audio.source import Pcm, check_header, invalid
from asr_service.audio.tags import TagSkipper
from asr_service.errors import InvalidAudio
from asr_service.types import AudioFormat

_NAME = "FLAC"
_STREAMINFO_BYTES = 34
# Enough that a frame holds by chance what looks like the next one's header; more is an attempt to waste time.
_MAX_FALSE_ENDS = 4


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """RFC 9639 section 8.2; `total_samples` (per channel) and `md5` are 0 where the writer did not know them."""

    max_block: int
    rate_hz: int
    channels: int
    bits: int
    total_samples: int
    md5: bytes

    @property
    def max_frame_bytes(self) -> int:
        """A frame is never larger than its samples as they are (one bit more for a side channel) and its headers."""
        return self.max_block * self.channels * (self.bits + 1) // 8 + 64 + 8 * self.channels


def parse_stream_info(block: bytes) -> StreamInfo:
    packed = int.from_bytes(block[10:18], "big")
    return StreamInfo(
        max_block=int.from_bytes(block[2:4], "big"),
        rate_hz=packed >> 44,
        channels=(packed >> 41 & 7) + 1,
        bits=(packed >> 36 & 31) + 1,
        total_samples=packed & (1 << 36) - 1,
        md5=block[18:34],
    )


class FlacSource:
    """Raises InvalidAudio for damage, a wrong sample count or a wrong MD5; RateMismatch, ChannelMismatch."""

    dropped_bytes = 0

    def __init__(self, declared: AudioFormat, limits: AudioLimits) -> None:
        self._declared = declared
        self._limits = limits
        self._buffer = ByteBuffer()
        self._tags = TagSkipper(self._buffer, _NAME, limits)
        self._magic_seen = False
        self._last_block_seen = False
        self._metadata_bytes = 0
        self._info: StreamInfo | None = None
        self._decoder: PacketDecoder | None = None
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._samples = 0
        self._frame: FrameHeader | None = None
        self._frames_read = 0
        self._searched = 2
        self._false_ends = 0

    def feed(self, data: bytes) -> Iterator[Pcm]:
        self._buffer.append(data)
        while not self._last_block_seen and self._read_metadata():
            pass
        if self._last_block_seen:
            yield from self._frames(complete=False)

    def finish(self) -> Iterator[Pcm]:
        info = self._info
        if info is None or not self._last_block_seen:
            raise invalid(_NAME, "ends before its metadata does")
        yield from self._frames(complete=True)
        if info.total_samples and self._samples != info.total_samples:
            raise invalid(_NAME, f"its header promises {info.total_samples} samples, but it has {self._samples}")
        if any(info.md5) and self._md5.digest() != info.md5:
            raise invalid(_NAME, "the MD5 of its samples is not the one in its header")

    def _read_metadata(self) -> bool:
        """Read the magic or one metadata block; False when it has not arrived."""
        if not self._magic_seen and not self._tags.skip(complete=False):
            return False
        if self._buffer.skipping or len(self._buffer) < 4:
            return False
        head = self._buffer.peek(4)
        if not self._magic_seen:
            if head != b"fLaC":
                raise invalid(_NAME, f"not a FLAC file: {describe(self._buffer.peek(12))}")
            self._magic_seen = True
            self._buffer.skip(4)
            return True
        kind, size = head[0] & 0x7F, int.from_bytes(head[1:], "big")
        if self._info is None:
            if kind != 0 or size != _STREAMINFO_BYTES:
                raise invalid(_NAME, "its first metadata block is not STREAMINFO")
            if len(self._buffer) < 4 + size:
                return False
            self._start(self._buffer.peek(size, 4))
        self._metadata_bytes += size
        if self._metadata_bytes > self._limits.max_metadata_bytes:
            raise invalid(_NAME, f"metadata of more than {self._limits.max_metadata_bytes} bytes")
        self._last_block_seen = bool(head[0] & 0x80)
        # Tags, pictures and seek tables are never held.
        self._buffer.skip(4 + size)
        return True

    def _start(self, block: bytes) -> None:
        info = parse_stream_info(block)
        check_header(self._declared, _NAME, (info.rate_hz,), info.channels)
        if not 4 <= info.bits <= 32 or info.max_block < 16:
            raise invalid(_NAME, f"{info.bits} bits a sample in blocks of {info.max_block} samples")
        self._info = info
        # FFmpeg leaves the frames' CRC-16 unchecked unless told.
        self._decoder = PacketDecoder(_NAME, "flac", block, {"err_detect": "crccheck+explode"})

    def _frames(self, *, complete: bool) -> Iterator[Pcm]:
        """Decode frames from the front of the buffer while they are known to be whole."""
        while len(self._buffer) and not self._buffer.skipping:
            if self._frame is None:
                if len(self._buffer) < MAX_HEADER_BYTES and not complete:
                    return
                self._frame = self._header_at(0)
                if self._frame is None:
                    raise invalid(_NAME, f"no frame begins where frame {self._frames_read} must")
            pcm = self._cut(self._frame, complete=complete)
            if pcm is None:
                return
            yield pcm

    def _cut(self, frame: FrameHeader, *, complete: bool) -> Pcm | None:
        """Decode the first frame if its end can be seen: the next one's header, or the end of the audio."""
        assert self._info is not None
        sync = b"\xff\xf9" if frame.variable_blocks else b"\xff\xf8"
        limit = min(self._info.max_frame_bytes, self._limits.max_packet_bytes)
        while 0 <= (position := self._buffer.find(sync, self._searched)) <= limit:
            if len(self._buffer) - position < MAX_HEADER_BYTES and not complete:
                break
            self._searched = position + 1
            following = self._header_at(position)
            if following is None or following.number != frame.next_number:
                continue
            try:
                pcm = self._decode(frame, position)
            except InvalidAudio:
                # Bytes that happened to look like a header, or a frame that is damaged: it is if none fits.
                self._false_ends += 1
                if self._false_ends >= _MAX_FALSE_ENDS:
                    raise
                continue
            self._frame = following
            return pcm
        if complete:
            try:
                pcm = self._decode(frame, len(self._buffer))
            except InvalidAudio as error:
                raise invalid(_NAME, f"frame {self._frames_read}, its last, is cut off or damaged") from error
            self._frame = None
            return pcm
        if len(self._buffer) > limit + MAX_HEADER_BYTES:
            raise invalid(_NAME, f"frame {self._frames_read} is damaged: no frame follows it within {limit} bytes")
        if position < 0:
            # The last byte may be the first half of a sync code.
            self._searched = max(self._searched, len(self._buffer) - 1)
        return None

    def _header_at(self, position: int) -> FrameHeader | None:
        """The frame header at `position` if there is one that agrees with STREAMINFO."""
        header, info = parse_header(self._buffer.peek(MAX_HEADER_BYTES, position)), self._info
        assert info is not None
        if header is None or header.channels != info.channels or header.block_size > info.max_block:
            return None
        if header.rate_hz not in (0, info.rate_hz) or header.bits not in (0, info.bits):
            return None
        return header

    def _decode(self, frame: FrameHeader, size: int) -> Pcm:
        """Decode the first `size` bytes as one frame, and take them if they are."""
        assert self._info is not None and self._decoder is not None
        decoded = self._decoder.decode(self._buffer.peek(size))
        if len(decoded) != 1 or decoded[0].shape != (frame.block_size, self._info.channels):
            raise invalid(_NAME, f"frame {self._frames_read} is damaged")
        self._buffer.skip(size)
        self._searched = 2
        self._false_ends = 0
        self._frames_read += 1
        self._samples += frame.block_size
        self._update_md5(decoded[0])
        return Pcm(to_float(decoded[0]), self._info.rate_hz)

    def _update_md5(self, samples: NDArray[np.generic]) -> None:
        """Over the samples as they were encoded: interleaved, little endian, in as many bytes as their bits need."""
        assert self._info is not None
        bits = self._info.bits
        original = samples.astype("<i4") >> (8 * samples.dtype.itemsize - bits)
        self._md5.update(original.reshape(-1, 1).view(np.uint8)[:, : (bits + 7) // 8].tobytes())
