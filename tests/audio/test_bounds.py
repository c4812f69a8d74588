"""Duration and memory are bounded while decoding, not after."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile as sf

from asr_service.audio import AudioLimits, StreamDecoder, decode_bytes
from asr_service.errors import AudioTooLong, InvalidAudio
from asr_service.types import AudioEncoding, AudioFormat
from tests.audio.samples import (
    LIMITS,
    OPUS_TAGS,
    encoded,
    flac_head,
    ogg_packets,
    ogg_page,
    ogg_pages,
    opus_head,
    pushed,
    raw,
    silent_flac_frame,
    split_ogg,
)

MEBIBYTE = 2**20


@contextmanager
def peak_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


@pytest.fixture(scope="module")
def flac_bomb() -> bytes:
    """24 hours of silence at 8 kHz in 200 kB."""
    frames = 24 * 3_600 * 8_000 // 65_535
    return flac_head() + b"".join(silent_flac_frame(number) for number in range(frames))


@pytest.fixture(scope="module")
def opus_bomb() -> bytes:
    """2 hours of silence: packets of 120 ms in 4 bytes (two empty frames of 60 ms, SILK)."""
    packet = bytes([0b01011_0_11, 2])
    pages = [
        ogg_page([opus_head()], sequence=0, granule=0, first=True),
        ogg_page([OPUS_TAGS], sequence=1, granule=0),
    ]
    pages += [ogg_page([packet] * 255, sequence=2 + k, granule=(k + 1) * 255 * 5_760) for k in range(250)]
    return b"".join(pages)


@pytest.mark.parametrize("bomb", ["flac_bomb", "opus_bomb"])
def test_a_bomb_is_refused_with_little_memory(bomb: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(bomb)
    assert len(data) < MEBIBYTE
    with peak_below(20 * MEBIBYTE), pytest.raises(AudioTooLong, match="longer than 60 s"):
        decode_bytes(data, AudioFormat(), limits=AudioLimits(max_duration_s=60))


@pytest.mark.parametrize("bomb", ["flac_bomb", "opus_bomb"])
def test_one_chunk_that_decodes_to_hours_takes_the_memory_of_a_block(bomb: str, request: pytest.FixtureRequest) -> None:
    decoder = StreamDecoder(AudioFormat(), limits=AudioLimits(max_duration_s=1e6))
    blocks = decoder.blocks(request.getfixturevalue(bomb))
    with peak_below(20 * MEBIBYTE):
        while decoder.received_s < 600.0:  # 38 MB
            next(blocks)


def opus_page() -> bytes:
    """30 s in 893 bytes: eight channels that are all of one coded stream, whose decoded page has 45 MiB."""
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 8, 0, 48_000, 0, 255) + bytes([1, 0]) + bytes(8)
    pages = [
        ogg_page([head], sequence=0, granule=0, first=True),
        ogg_page([OPUS_TAGS], sequence=1, granule=0),
        ogg_page([bytes([0b01011_0_11, 2])] * 255, sequence=2, granule=255 * 5_760, last=True),
    ]
    return b"".join(pages)


def vorbis_page() -> bytes:
    """5 s in a page of 255 equal packets of silence, eight channels, whose decoded page has 8 MiB."""
    file = io.BytesIO()
    sf.write(file, np.zeros((48_000, 8), np.float32), 48_000, format="OGG", subtype="VORBIS")
    identification, *headers, silence = ogg_packets(split_ogg(file.getvalue()))[: 3 + 20]
    pages = [
        ogg_page([identification], sequence=0, granule=0, first=True),
        ogg_page(headers[:2], sequence=1, granule=0),
        ogg_page([silence] * 255, sequence=2, granule=254 * 1_024),
    ]
    return b"".join(pages)


@pytest.mark.parametrize(("page", "seconds"), [(opus_page(), 255 * 0.12), (vorbis_page(), 254 * 1_024 / 48_000)])
def test_a_page_is_decoded_packet_by_packet(page: bytes, seconds: float) -> None:
    decoder = StreamDecoder(AudioFormat(), limits=LIMITS)
    with peak_below(4 * MEBIBYTE):
        for _ in decoder.blocks(page):
            pass
    assert decoder.received_s == pytest.approx(seconds)


@pytest.mark.parametrize("bomb", ["flac_bomb", "opus_bomb"])
def test_blocks_hold_one_block_at_a_time(bomb: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(bomb)
    decoder = StreamDecoder(AudioFormat(), limits=AudioLimits(max_duration_s=400))
    seconds = []
    with peak_below(20 * MEBIBYTE), pytest.raises(AudioTooLong):
        seconds.extend(len(block) / 16_000 for block in decoder.blocks(data))
    assert sum(seconds) == pytest.approx(400, abs=0.2)
    assert decoder.received_s == 400


@pytest.mark.parametrize("size", [1, 3_200, 100_000])
def test_audio_up_to_the_limit_is_taken_and_one_sample_more_is_not(size: int) -> None:
    fmt = raw(AudioEncoding.LINEAR16)
    limits = AudioLimits(max_duration_s=0.5)
    assert len(decode_bytes(bytes(16_000), fmt, limits=limits)) == 8_000
    decoder = StreamDecoder(fmt, limits=limits)
    for start in range(0, 16_000, size):
        pushed(decoder, bytes(min(size, 16_000 - start)))
    assert decoder.received_s == 0.5
    with pytest.raises(AudioTooLong, match=r"longer than 0\.5 s"):
        pushed(decoder, bytes(2))


def test_chained_streams_of_other_rates_have_one_limit_together() -> None:
    chained = encoded("OGG", "VORBIS", 1.0, 16_000) + encoded("OGG", "VORBIS", 1.0, 8_000)
    decoder = StreamDecoder(AudioFormat(), limits=AudioLimits(max_duration_s=1.5))
    with pytest.raises(AudioTooLong, match=r"longer than 1\.5 s"):
        pushed(decoder, chained)
    assert decoder.received_s == 1.5


def test_ten_minutes_of_digital_silence_are_fine() -> None:
    frames = 600 * 8_000 // 65_535
    data = flac_head() + b"".join(silent_flac_frame(number) for number in range(frames))
    got = decode_bytes(data, AudioFormat(), limits=LIMITS)
    assert len(got) == frames * 65_535 * 2
    assert not np.any(got)


def test_a_packet_that_never_ends_is_refused() -> None:
    # A frame header, then zeros: no frame ever follows.
    frame = silent_flac_frame(0)
    decoder = StreamDecoder(AudioFormat(), limits=AudioLimits(max_packet_bytes=50_000))
    with pytest.raises(InvalidAudio, match="within 50000 bytes"):
        pushed(decoder, flac_head() + frame[:-2] + bytes(60_000))


def test_an_ogg_packet_over_many_pages_is_refused() -> None:
    head = ogg_page([opus_head()], sequence=0, granule=0, first=True)
    tags = ogg_page([OPUS_TAGS], sequence=1, granule=0)
    pages = ogg_pages([bytes(200_000)], sequence=2, serial=7)
    decoder = StreamDecoder(AudioFormat(), limits=AudioLimits(max_packet_bytes=100_000))
    with pytest.raises(InvalidAudio, match="a packet of more than 100000 bytes"):
        pushed(decoder, b"".join([head, tags, *pages]))


def test_headers_are_bounded_for_each_of_the_chained_streams() -> None:
    pages = [
        ogg_page([opus_head()], sequence=0, granule=0, first=True),
        ogg_page([OPUS_TAGS + bytes(200)], sequence=1, granule=0),
        ogg_page([b"\xf8\xff\xfe"] * 50, sequence=2, granule=48_000, last=True),
    ]
    chained = b"".join(pages * 5)
    assert len(decode_bytes(chained, AudioFormat(), limits=AudioLimits(max_metadata_bytes=300))) == 5 * 16_000
    with pytest.raises(InvalidAudio, match="headers of more than 200 bytes"):
        decode_bytes(chained, AudioFormat(), limits=AudioLimits(max_metadata_bytes=200))


def test_a_large_raw_chunk_is_converted_piece_by_piece() -> None:
    decoder = StreamDecoder(raw(AudioEncoding.MULAW, 8_000), limits=LIMITS)
    data = b"\xff" * (8 * MEBIBYTE)
    with peak_below(12 * MEBIBYTE):
        for _ in decoder.blocks(data):
            pass
