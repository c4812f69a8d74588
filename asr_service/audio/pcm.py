"""Uncompressed sample formats to float32, for raw streams and WAV alike.

Shapes: n samples per channel, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

BLOCK_FRAMES = 65_536
"""Samples per channel converted at a time, so that a large chunk is not held in float as a whole."""


@dataclass(frozen=True, slots=True)
class SampleFormat:
    """One way to write a sample: `decode` maps whole samples (bytes) to float32 of full scale 1.0, shape (n * C,)."""

    name: str
    size: int
    decode: Callable[[bytes], Samples]


def _integers(dtype: str, full_scale: float) -> Callable[[bytes], Samples]:
    scale = np.float32(1.0 / full_scale)

    def decode(data: bytes) -> Samples:
        return np.frombuffer(data, dtype=dtype).astype(np.float32) * scale

    return decode


def _unsigned_8(data: bytes) -> Samples:
    return (np.frombuffer(data, dtype=np.uint8).astype(np.float32) - np.float32(128.0)) * np.float32(1 / 128.0)


def _signed_24(data: bytes) -> Samples:
    triples = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
    words = np.zeros((len(triples), 4), dtype=np.uint8)
    # In the upper three bytes of a 32-bit word, so that the sign needs no care.
    words[:, 1:] = triples
    return words.view("<i4")[:, 0].astype(np.float32) * np.float32(2.0**-31)


def _floats(dtype: str) -> Callable[[bytes], Samples]:
    def decode(data: bytes) -> Samples:
        # A double beyond float32 becomes infinite, and is then refused like one.
        with np.errstate(over="ignore", invalid="ignore"):
            return np.frombuffer(data, dtype=dtype).astype(np.float32)

    return decode


def _mulaw_table() -> Samples:
    """ITU-T G.711 mu-law expansion of all 256 codes (14-bit values in a 16-bit scale)."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code >> 4) & 0x07)) - 0x84
    return (np.where(code & 0x80, -magnitude, magnitude) / 32768.0).astype(np.float32)


def _alaw_table() -> Samples:
    """ITU-T G.711 A-law expansion of all 256 codes (13-bit values in a 16-bit scale)."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent = (code >> 4) & 0x07
    mantissa = ((code & 0x0F) << 4) + 8
    magnitude = np.where(exponent > 0, (mantissa + 0x100) << np.maximum(exponent - 1, 0), mantissa)
    return (np.where(code & 0x80, magnitude, -magnitude) / 32768.0).astype(np.float32)


def _companded(table: Samples) -> Callable[[bytes], Samples]:
    def decode(data: bytes) -> Samples:
        return table[np.frombuffer(data, dtype=np.uint8)]

    return decode


UNSIGNED_8 = SampleFormat("8-bit PCM", 1, _unsigned_8)
SIGNED_16 = SampleFormat("16-bit PCM", 2, _integers("<i2", 2.0**15))
SIGNED_24 = SampleFormat("24-bit PCM", 3, _signed_24)
SIGNED_32 = SampleFormat("32-bit PCM", 4, _integers("<i4", 2.0**31))
FLOAT_32 = SampleFormat("32-bit float", 4, _floats("<f4"))
FLOAT_64 = SampleFormat("64-bit float", 8, _floats("<f8"))
MULAW = SampleFormat("mu-law", 1, _companded(_mulaw_table()))
ALAW = SampleFormat("A-law", 1, _companded(_alaw_table()))


class FrameReader:
    """Cuts a byte stream into frames of C samples; the bytes of an incomplete frame wait for their rest."""

    def __init__(self, sample_format: SampleFormat, channels: int) -> None:
        self._format = sample_format
        self._channels = channels
        self._frame_size = sample_format.size * channels
        self._carry = b""

    @property
    def pending_bytes(self) -> int:
        return len(self._carry)

    def read(self, data: bytes) -> Iterator[Samples]:
        """Yield float32 arrays of shape (n, C) with n up to BLOCK_FRAMES."""
        data = self._carry + data
        whole = len(data) - len(data) % self._frame_size
        self._carry = data[whole:]
        block = BLOCK_FRAMES * self._frame_size
        for start in range(0, whole, block):
            samples = self._format.decode(data[start : min(start + block, whole)])
            yield samples.reshape(-1, self._channels)
