"""MP3 (MPEG-1, -2 and -2.5 layer III), cut into frames as it arrives, without its encoder's delay and padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from asr_service.audio.buffer import ByteBuffer
from asr_service.audio.codec import PacketDecoder, to_float
from asr_service.audio.limits import SNIFF_BYTES, AudioLimits
from asr_service.audio.mpeg_frame import HEADER_BYTES, MpegHeader, parse_header
from asr_service.audio.sniff import describe
from asr_service.audio.source import Pcm, check_header, invalid
from asr_service.audio.tags import ANYWHERE, TagSkipper
from asr_service.types import AudioFormat

_NAME = "MP3"
_DECODER_DELAY = 529
"""Samples that every layer III decoder adds: 528 of the filter banks and one of the usual convention."""


class Mp3Source:
    """Raises InvalidAudio where no frames are found or the stream is broken for long; RateMismatch, ChannelMismatch.

    The first SNIFF_BYTES may hold the rest of a frame (a recording of a broadcast), and so may a damaged place.
    """

    def __init__(self, declared: AudioFormat, limits: AudioLimits) -> None:
        self._declared = declared
        self._buffer = ByteBuffer()
        self._tags = TagSkipper(self._buffer, _NAME, limits, ANYWHERE)
        self._decoder: PacketDecoder | None = None
        self._first: MpegHeader | None = None
        self._at_boundary = True
        """A frame or a tag begins at the front of the buffer: at the start, and behind a frame."""
        self._searched = 0
        self._skip = 0
        self._hold = 0
        self._frames = 0
        self._promised_frames: int | None = None
        self._held: list[NDArray[np.float32]] = []

    @property
    def dropped_bytes(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Pcm]:
        self._buffer.append(data)
        yield from self._read(complete=False)

    def finish(self) -> Iterator[Pcm]:
        yield from self._read(complete=True)
        if self._first is None:
            if self._buffer.skipping:
                raise invalid(_NAME, "ends inside a tag, before its first frame")
            raise invalid(_NAME, f"no MP3 frame found: {describe(self._buffer.peek(64))}")
        # Only a file as long as its header says ends in the padding that its header says.
        padding = self._hold if self._promised_frames in (None, self._frames) else 0
        keep = sum(map(len, self._held)) - padding
        for samples in self._held:  # one by one: they may differ in their channels
            if keep > 0:
                yield Pcm(samples[:keep], self._first.rate_hz)
            keep -= len(samples)

    def _read(self, *, complete: bool) -> Iterator[Pcm]:
        while not self._buffer.skipping:
            header = self._next_header(complete=complete)
            if header is None or len(self._buffer) < header.size:
                return
            self._tags.audio_found()
            yield from self._decode(header, self._buffer.take(header.size))

    def _next_header(self, *, complete: bool) -> MpegHeader | None:
        """The header at the front of the buffer, behind tags, and after a search where the stream is out of step."""
        if self._at_boundary:
            if not self._tags.skip(complete=complete):
                return None
            if self._first is not None:
                head = self._buffer.peek(HEADER_BYTES)
                if len(head) < HEADER_BYTES:
                    return None
                header = parse_header(head)
                if header is not None and header.continues(self._first):
                    return header
            self._at_boundary = False
        return self._search(complete=complete)

    def _search(self, *, complete: bool) -> MpegHeader | None:
        """Find a header that another one of the same stream follows; drop what lies before it."""
        while (position := self._buffer.find(b"\xff", self._searched)) >= 0:
            if position > SNIFF_BYTES:
                break
            header = parse_header(self._buffer.peek(HEADER_BYTES, position))
            if header is not None and (self._first is None or header.continues(self._first)):
                after = self._buffer.peek(HEADER_BYTES, position + header.size)
                if len(after) < HEADER_BYTES and not complete:
                    self._searched = position
                    return None
                following = parse_header(after)
                ends_here = complete and len(self._buffer) == position + header.size
                if ends_here or (following is not None and following.continues(header)):
                    self._buffer.skip(position)
                    self._searched = 0
                    self._at_boundary = True
                    return header
            elif len(self._buffer) - position < HEADER_BYTES and not complete:
                self._searched = position
                return None
            self._searched = position + 1
        if len(self._buffer) > SNIFF_BYTES + HEADER_BYTES:
            if self._first is None:
                raise invalid(_NAME, f"no MP3 frame within {SNIFF_BYTES} bytes: {describe(self._buffer.peek(64))}")
            raise invalid(_NAME, f"out of step: no frame follows within {SNIFF_BYTES} bytes")
        return None

    def _decode(self, header: MpegHeader, frame: bytes) -> Iterator[Pcm]:
        if self._first is None:
            check_header(self._declared, _NAME, (header.rate_hz,), header.channels)
            self._first = header
            self._decoder = PacketDecoder(_NAME, "mp3float")
            if self._read_info(header, frame):
                return
        assert self._decoder is not None
        self._frames += 1
        for decoded in self._decoder.decode(frame):
            samples = to_float(decoded)
            kept = samples[self._skip :]
            self._skip = max(self._skip - len(samples), 0)
            for released in self._release(kept):
                yield Pcm(released, header.rate_hz)

    def _read_info(self, header: MpegHeader, frame: bytes) -> bool:
        """Read a Xing or Info frame, which holds no audio: delay and padding as LAME writes them.

        Its count of frames is not believed, only compared: lengths come from the frames that are there.
        """
        tag = HEADER_BYTES + header.side_info_bytes
        if frame[tag : tag + 4] not in (b"Xing", b"Info"):
            return frame[36:40] == b"VBRI"
        flags = int.from_bytes(frame[tag + 4 : tag + 8], "big")
        if flags & 1:
            self._promised_frames = int.from_bytes(frame[tag + 8 : tag + 12], "big")
        # Optional: frames (4), bytes (4), seek table (100), quality (4); then LAME's block, delay at its byte 21.
        lame = tag + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
        if frame[lame : lame + 4] in (b"LAME", b"Lavf", b"Lavc"):
            packed = int.from_bytes(frame[lame + 21 : lame + 24], "big")
            self._skip = (packed >> 12) + _DECODER_DELAY
            self._hold = max((packed & 0xFFF) - _DECODER_DELAY, 0)
        return True

    def _release(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Hold back as many samples as the padding at the end has, since nobody knows which frame is the last."""
        if self._hold == 0:
            yield samples
            return
        self._held.append(samples)
        held = sum(map(len, self._held))
        while self._held and held - len(self._held[0]) >= self._hold:
            held -= len(self._held[0])
            yield self._held.pop(0)
