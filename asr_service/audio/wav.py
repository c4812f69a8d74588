"""WAV, read as it arrives: RIFF and RF64 with PCM, float, mu-law and A-law, plain or extensible.

Strict about what says how to read the samples, lenient about sizes, which whoever writes a WAV into a pipe cannot know
(0, 0xFFFFFFFF, or more than follows). Reference: Microsoft/IBM "Multimedia Programming Interface and Data
Specifications 1.0" and `WAVEFORMATEXTENSIBLE`; EBU Tech 3306 for RF64.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from asr_service.audio.buffer import ByteBuffer
from asr_service.audio.limits import AudioLimits
from asr_service.audio.pcm import (
    ALAW,
    FLOAT_32,
    FLOAT_64,
    MULAW,
    SIGNED_16,
    SIGNED_24,
    SIGNED_32,
    UNSIGNED_8,
    FrameReader,
    SampleFormat,
)
from asr_service.audio.sniff import describe
from asr_service.audio.source import Pcm, check_header, invalid
from asr_service.types import AudioFormat

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
_FORMATS: dict[tuple[int, int], SampleFormat] = {
    (_PCM, 8): UNSIGNED_8,
    (_PCM, 16): SIGNED_16,
    (_PCM, 24): SIGNED_24,
    (_PCM, 32): SIGNED_32,
    (_FLOAT, 32): FLOAT_32,
    (_FLOAT, 64): FLOAT_64,
    (_ALAW, 8): ALAW,
    (_MULAW, 8): MULAW,
}
# KSDATAFORMAT_SUBTYPE_*: the first two bytes are the plain format tag, the rest is this.
_SUBTYPE_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)
_MAX_FMT_BYTES = 1024
_CHUNK_HEADER = struct.Struct("<4sI")


class WavSource:
    """Raises InvalidAudio, RateMismatch or ChannelMismatch from the header; a truncated last sample is dropped."""

    def __init__(self, declared: AudioFormat, limits: AudioLimits) -> None:
        self._declared = declared
        self._limits = limits
        self._buffer = ByteBuffer()
        self._riff_size: int | None = None
        self._long_data_size: int | None = None
        self._position = 0
        self._skipped = 0
        self._chunks = 0
        self._sample_format: tuple[SampleFormat, int, int] | None = None
        self._frames: FrameReader | None = None
        self._rate_hz = 0
        self._data_left: int | None = None

    @property
    def dropped_bytes(self) -> int:
        return self._frames.pending_bytes if self._frames is not None else 0

    def feed(self, data: bytes) -> Iterator[Pcm]:
        frames = self._frames
        if frames is None:
            self._buffer.append(data)
            frames = self._read_header()
            if frames is None:
                return
            data = self._buffer.take_all()
        if self._data_left is not None:
            # What follows the data chunk (tags, mostly) is no audio.
            data = data[: self._data_left]
            self._data_left -= len(data)
        for samples in frames.read(data):
            yield Pcm(samples, self._rate_hz)

    def finish(self) -> Iterator[Pcm]:
        if self._frames is None and self._at_data_of_unclear_size:
            self._start_data(0)  # what follows is too short to be another chunk
            yield from self.feed(self._buffer.take_all())
        if self._frames is None:
            missing = "data chunk" if self._sample_format is not None else "fmt chunk"
            raise invalid("WAV", f"ends before its {missing}")

    @property
    def _at_data_of_unclear_size(self) -> bool:
        """Next is the header of a data chunk of 0 bytes: what follows it says whether the writer knew."""
        return self._riff_size is not None and self._buffer.peek(8) == _CHUNK_HEADER.pack(b"data", 0)

    def _read_header(self) -> FrameReader | None:
        """Read chunks up to the beginning of the data; None while that has not arrived."""
        while self._frames is None and self._parse():
            pass
        return self._frames

    def _parse(self) -> bool:
        """Read one chunk header or chunk; False when it has not arrived as a whole."""
        if self._buffer.skipping:
            return False
        if self._riff_size is None:
            return self._parse_riff()
        if len(self._buffer) < 8:
            return False
        name, size = _CHUNK_HEADER.unpack(self._buffer.peek(8))
        if name == b"data":
            if self._at_data_of_unclear_size and len(self._buffer) < 16:
                return False
            self._start_data(size)
            return True
        if name in (b"fmt ", b"ds64"):
            if size > _MAX_FMT_BYTES:
                raise invalid("WAV", f"its {name.decode()!r} chunk has {size} bytes; at most {_MAX_FMT_BYTES} are read")
            if len(self._buffer) < 8 + size:
                return False
            self._count_chunk()
            self._take(8)
            body = self._take(size)
            if name == b"fmt ":
                self._parse_format(body)
            elif len(body) >= 16:
                self._long_data_size = struct.unpack_from("<Q", body, 8)[0]
            self._position += size & 1
            self._buffer.skip(size & 1)
            return True
        self._count_chunk()
        self._take(8)
        self._skip(size + (size & 1))
        return True

    def _parse_riff(self) -> bool:
        if len(self._buffer) < 12:
            return False
        head = self._take(12)
        if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:] != b"WAVE":
            raise invalid("WAV", f"not a WAV file: {describe(head)}")
        self._riff_size = struct.unpack("<I", head[4:8])[0]
        return True

    def _parse_format(self, body: bytes) -> None:
        if len(body) < 16:
            raise invalid("WAV", f"its fmt chunk has {len(body)} bytes; it needs 16")
        tag, channels, rate, _, block_align, bits = struct.unpack_from("<HHIIHH", body)
        if tag == _EXTENSIBLE:
            if len(body) < 40:
                raise invalid("WAV", f"its extensible fmt chunk has {len(body)} bytes; it needs 40")
            if body[26:40] != _SUBTYPE_TAIL:
                raise invalid("WAV", f"unknown extensible sub-format {body[24:40].hex()}")
            tag = struct.unpack_from("<H", body, 24)[0]
        sample_format = _FORMATS.get((tag, bits))
        if sample_format is None:
            raise invalid(
                "WAV",
                f"format tag 0x{tag:04X} with {bits} bits a sample is not supported; PCM with 8, 16, 24, 32, float with"
                " 32, 64, mu-law and A-law are",
            )
        check_header(self._declared, "WAV", (rate,), channels)
        if block_align != channels * sample_format.size:
            raise invalid(
                "WAV",
                f"block_align is {block_align}; with {channels} x {bits} bits a sample it is"
                f" {channels * sample_format.size}",
            )
        self._sample_format = (sample_format, channels, rate)

    def _start_data(self, size: int) -> None:
        if self._sample_format is None:
            raise invalid("WAV", "its data chunk comes before its fmt chunk")
        sample_format, channels, self._rate_hz = self._sample_format
        self._take(8)
        self._frames = FrameReader(sample_format, channels)
        if size == 0xFFFFFFFF and self._long_data_size:
            self._data_left = self._long_data_size
        elif size not in _UNKNOWN_SIZES or (size == 0 and self._at_another_chunk()):
            self._data_left = size

    def _at_another_chunk(self) -> bool:
        """Whether a chunk follows that the RIFF size has room for, rather than samples."""
        assert self._riff_size is not None
        if self._riff_size in _UNKNOWN_SIZES or len(self._buffer) < 8:
            return False
        name, size = _CHUNK_HEADER.unpack(self._buffer.peek(8))
        is_name: bool = name.isascii() and name.decode().isprintable()
        return is_name and self._position + 8 + size <= 8 + self._riff_size

    def _take(self, size: int) -> bytes:
        self._position += size
        return self._buffer.take(size)

    def _skip(self, size: int) -> None:
        self._position += size
        self._skipped += size
        if self._skipped > self._limits.max_metadata_bytes:
            raise invalid("WAV", f"more than {self._limits.max_metadata_bytes} bytes of other chunks before its data")
        self._buffer.skip(size)

    def _count_chunk(self) -> None:
        self._chunks += 1
        if self._chunks > self._limits.max_riff_chunks:
            raise invalid("WAV", f"more than {self._limits.max_riff_chunks} chunks before its data")
