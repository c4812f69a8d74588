"""Audio made by the tests: waveforms, encoded files, and containers put together byte by byte."""

from __future__ import annotations

import io
import struct
from functools import cache

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from asr_service.audio import AudioLimits, StreamDecoder, decode_bytes
from asr_service.types import AudioEncoding, AudioFormat

LIMITS = AudioLimits()
ANY = AudioFormat()


@cache
def chirp(seconds: float = 1.0, rate: int = 16_000, channels: int = 1) -> NDArray[np.float32]:
    """A rising tone with a little noise, shape (n, channels), another phase in each channel."""
    t = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal((len(t), channels)) * 0.01
    tones = [0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t + k) for k in range(channels)]
    return (np.stack(tones, 1) + noise).astype(np.float32)


@cache
def encoded(
    container: str, subtype: str | None = None, seconds: float = 1.0, rate: int = 16_000, channels: int = 1
) -> bytes:
    """`chirp` as a file, written by libsndfile."""
    file = io.BytesIO()
    sf.write(file, chirp(seconds, rate, channels), rate, format=container, subtype=subtype)
    return file.getvalue()


def oracle(data: bytes) -> tuple[NDArray[np.float32], int]:
    """What libsndfile reads, mixed to mono, and the rate."""
    samples, rate = sf.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return samples.mean(axis=1), rate


def decode(data: bytes, fmt: AudioFormat = ANY, limits: AudioLimits = LIMITS, **options: int) -> NDArray[np.float32]:
    return decode_bytes(data, fmt, limits=limits, **options)


def raw(encoding: AudioEncoding, rate: int = 16_000, channels: int = 0) -> AudioFormat:
    return AudioFormat(encoding, rate, channels)


def pushed(decoder: StreamDecoder, data: bytes) -> NDArray[np.float32]:
    """All samples that become available with some bytes."""
    return np.concatenate([np.zeros(0, np.float32), *decoder.blocks(data)])


def decode_pieces(pieces: list[bytes], fmt: AudioFormat = ANY) -> NDArray[np.float32]:
    decoder = StreamDecoder(fmt, limits=LIMITS)
    return np.concatenate([*[pushed(decoder, piece) for piece in pieces], decoder.finish()])


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    """A RIFF chunk, padded to an even size; `size` is what its header says instead of the truth."""
    return struct.pack("<4sI", name, len(body) if size is None else size) + body + b"\0" * (len(body) & 1)


def fmt_chunk(
    tag: int = 1,
    channels: int = 1,
    rate: int = 16_000,
    bits: int = 16,
    block_align: int | None = None,
    tail: bytes = b"",
) -> bytes:
    align = channels * bits // 8 if block_align is None else block_align
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, (rate * align) & 0xFFFFFFFF, align, bits) + tail)


def riff(*chunks: bytes, size: int | None = None, magic: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size) + body


@cache
def _crc_table(bits: int, polynomial: int) -> list[int]:
    """The remainder of each byte, bit by bit, as the specifications write it."""
    top, mask, table = 1 << bits - 1, (1 << bits) - 1, []
    for byte in range(256):
        crc = byte << bits - 8
        for _ in range(8):
            crc = (crc << 1 ^ (polynomial if crc & top else 0)) & mask
        table.append(crc)
    return table


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    """Most significant bit first, from 0."""
    crc, mask, table = 0, (1 << bits) - 1, _crc_table(bits, polynomial)
    for byte in data:
        crc = (crc << 8 & mask) ^ table[crc >> bits - 8 ^ byte]
    return crc


def ogg_page(
    packets: list[bytes], *, sequence: int, granule: int, serial: int = 7, first: bool = False, last: bool = False
) -> bytes:
    """A page of whole packets."""
    return _page(_lacing(packets), b"".join(packets), 2 * first + 4 * last, granule, serial, sequence)


def ogg_pages(packets: list[bytes], *, sequence: int, serial: int) -> list[bytes]:
    """Pages filled to the brim, with granule position 0: packets go on from one to the next."""
    lacing, body, pages = _lacing(packets), b"".join(packets), []
    continued = 0
    while lacing:
        here, lacing = lacing[:255], lacing[255:]
        pages.append(_page(here, body[: sum(here)], continued, 0, serial, sequence + len(pages)))
        body = body[sum(here) :]
        continued = int(here[-1] == 255)
    return pages


def _lacing(packets: list[bytes]) -> bytes:
    return b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)


def _page(lacing: bytes, body: bytes, flags: int, granule: int, serial: int, sequence: int) -> bytes:
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, serial, sequence, 0)
    page = head + bytes([len(lacing)]) + lacing + body
    return page[:22] + struct.pack("<I", _crc(page, 32, 0x04C11DB7)) + page[26:]


def renumbered(page: bytes, sequence: int) -> bytes:
    segments = page[26]
    lacing, body = page[27 : 27 + segments], page[27 + segments :]
    granule, serial = struct.unpack_from("<qI", page, 6)
    return _page(lacing, body, page[5], granule, serial, sequence)


def moved(page: bytes, samples: int) -> bytes:
    """With a granule position so many samples later."""
    segments = page[26]
    granule, serial, sequence = struct.unpack_from("<qII", page, 6)
    return _page(page[27 : 27 + segments], page[27 + segments :], page[5], granule + samples, serial, sequence)


def ogg_packets(pages: list[bytes]) -> list[bytes]:
    packets, packet = [], b""
    for page in pages:
        start = 27 + page[26]
        for size in page[27:start]:
            packet += page[start : start + size]
            start += size
            if size < 255:
                packets.append(packet)
                packet = b""
    return packets


def opus_head(channels: int = 1, pre_skip: int = 0, rate: int = 16_000) -> bytes:
    return b"OpusHead" + struct.pack("<BBHIhB", 1, channels, pre_skip, rate, 0, 0)


OPUS_TAGS = b"OpusTags" + bytes(8)


def split_ogg(data: bytes) -> list[bytes]:
    pages = []
    while data:
        segments = data[26]
        size = 27 + segments + sum(data[27 : 27 + segments])
        pages.append(data[:size])
        data = data[size:]
    return pages


def flac_head(rate: int = 8_000, total: int = 0, block: int = 65_535, md5: bytes = bytes(16)) -> bytes:
    packed = rate << 44 | 0 << 41 | 15 << 36 | total
    info = struct.pack(">HH", block, block) + bytes(6) + packed.to_bytes(8, "big") + md5
    return b"fLaC" + bytes([0x80, 0, 0, len(info)]) + info


def silent_flac_frame(number: int, block: int = 65_535) -> bytes:
    """A mono 16-bit frame of `block` zeros: a constant subframe."""
    head = bytes([0xFF, 0xF8, 0x70, 0x08]) + _utf8(number) + struct.pack(">H", block - 1)
    head += bytes([_crc(head, 8, 0x07)])
    frame = head + b"\0\0\0"
    return frame + struct.pack(">H", _crc(frame, 16, 0x8005))


def _utf8(number: int) -> bytes:
    return chr(number).encode("utf-8", "surrogatepass")


def id3(size: int) -> bytes:
    """The header of an ID3v2 tag of `size` bytes more."""
    return b"ID3\4\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


ID3V1 = b"TAG" + b"\xff\xfb\x90" * 41 + b"\0\0"


def ape(size: int) -> bytes:
    """An APEv2 tag with `size` bytes of items: header, items, footer."""
    head, foot = (
        b"APETAGEX" + struct.pack("<IIII", 2_000, size + 32, 1, 1 << 31 | is_header << 29) + bytes(8)
        for is_header in (1, 0)
    )
    return head + b"\xff\xfb\x90\x64" * (size // 4) + bytes(size % 4) + foot


def lyrics(size: int, end: bytes = b"LYRICS200") -> bytes:
    return b"LYRICSBEGIN" + b"la " * (size // 3) + b"000000"[: 6 * end.endswith(b"200")] + end
