"""The header of a FLAC frame (RFC 9639 section 9.1)."""

from __future__ import annotations

from dataclasses import dataclass

MAX_HEADER_BYTES = 16
_RATES_HZ = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
_BITS = (0, 8, 12, None, 16, 20, 24, 32)


def _crc8_table() -> bytes:
    """CRC-8 with polynomial x^8 + x^2 + x + 1."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
        table.append(crc)
    return bytes(table)


_CRC8 = _crc8_table()


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """`number` counts frames, or samples where the blocks vary; rate and bits are 0 where STREAMINFO has them."""

    variable_blocks: bool
    number: int
    block_size: int
    rate_hz: int
    channels: int
    bits: int

    @property
    def next_number(self) -> int:
        return self.number + (self.block_size if self.variable_blocks else 1)


def parse_header(data: bytes) -> FrameHeader | None:
    """Return None where `data` does not begin with a whole frame header whose checksum is right."""
    if len(data) < 6 or data[0] != 0xFF or data[1] & 0xFE != 0xF8:
        return None
    block_code, rate_code = data[2] >> 4, data[2] & 15
    channel_code, bits_code, reserved = data[3] >> 4, data[3] >> 1 & 7, data[3] & 1
    bits = _BITS[bits_code]
    if block_code == 0 or rate_code == 15 or channel_code > 10 or bits is None or reserved:
        return None
    coded = _coded_number(data)
    if coded is None:
        return None
    number, end = coded
    block_bytes = {6: 1, 7: 2}.get(block_code, 0)
    rate_bytes = {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    crc_at = end + block_bytes + rate_bytes
    if len(data) <= crc_at or _crc8(data[:crc_at]) != data[crc_at]:
        return None
    if block_bytes:
        block_size = int.from_bytes(data[end : end + block_bytes], "big") + 1
    elif block_code == 1:
        block_size = 192
    else:
        block_size = 576 << block_code - 2 if block_code < 6 else 256 << block_code - 8
    if rate_bytes:
        rate = int.from_bytes(data[end + block_bytes : crc_at], "big") * {12: 1000, 13: 1, 14: 10}[rate_code]
    else:
        rate = _RATES_HZ[rate_code]
    channels = channel_code + 1 if channel_code < 8 else 2
    return FrameHeader(bool(data[1] & 1), number, block_size, rate, channels, bits)


def _coded_number(data: bytes) -> tuple[int, int] | None:
    """The number at byte 4, coded as UTF-8 codes characters but up to 36 bits, and the offset after it."""
    first = data[4]
    length = 1
    if first & 0x80:
        length = 8 - (first ^ 0xFF).bit_length()
        if length == 1 or length > 7:
            return None
    following = data[5 : 4 + length]
    if len(following) < length - 1 or any(byte & 0xC0 != 0x80 for byte in following):
        return None
    number = first if length == 1 else first & (0x7F >> length)
    for byte in following:
        number = number << 6 | byte & 0x3F
    return number, 4 + length


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc
