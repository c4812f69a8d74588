"""Ogg with Opus or Vorbis: right to the sample at both ends, chained streams, and nothing missing in silence."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import soxr

from asr_service.audio import AudioLimits, StreamDecoder
from asr_service.audio.codec import PacketDecoder
from asr_service.audio.ogg import page_checksum
from asr_service.audio.opus import packet_samples
from asr_service.errors import ChannelMismatch, InvalidAudio, RateMismatch
from asr_service.types import AudioEncoding, AudioFormat
from tests.audio.samples import (
    LIMITS,
    OPUS_TAGS,
    decode,
    encoded,
    moved,
    ogg_packets,
    ogg_page,
    ogg_pages,
    opus_head,
    oracle,
    pushed,
    renumbered,
    split_ogg,
)

OGG = AudioFormat(AudioEncoding.OGG_OPUS)
SILENT_20_MS = b"\xf8\xff\xfe"
HALF_A_PACKET = ogg_pages([SILENT_20_MS * 30_000], sequence=2, serial=7)[0]


def opus_stream(pages: list[bytes], **head: int) -> bytes:
    start = [
        ogg_page([opus_head(**head)], sequence=0, granule=0, first=True),
        ogg_page([OPUS_TAGS], sequence=1, granule=0),
    ]
    return b"".join(start + pages)


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_vorbis_equals_libsndfile(rate: int, channels: int) -> None:
    data = encoded("OGG", "VORBIS", 2.0, rate, channels)
    mono, _ = oracle(data)
    np.testing.assert_allclose(decode(data, OGG), soxr.resample(mono, rate, 16_000, "HQ"), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 12_000, 16_000, 24_000, 48_000])
def test_opus_has_libsndfiles_samples_in_libsndfiles_places(rate: int, channels: int) -> None:
    """At 48 kHz to rounding; below, within a sample: there libsndfile has libopus decode at the original's rate,
    whose resampler turns phases a little otherwise."""
    data = encoded("OGG", "OPUS", 3.0, rate, channels)
    mono, _ = oracle(data)
    expected = soxr.resample(mono, rate, 16_000, "HQ")
    got = decode(data)
    assert len(got) == len(expected) == 48_000
    if rate == 48_000:
        np.testing.assert_allclose(got, expected, atol=1e-5)
    likeness = {lag: np.corrcoef(got[1_000 + lag : 16_000 + lag], expected[1_000:16_000])[0, 1] for lag in range(-4, 5)}
    best = max(likeness, key=lambda lag: likeness[lag])
    assert abs(best) <= 1 and likeness[best] > 0.99


def test_the_granule_position_of_the_last_page_cuts_the_end() -> None:
    packets = [SILENT_20_MS] * 50
    page = ogg_page(packets, sequence=2, granule=312 + 30_000, last=True)
    assert len(decode(opus_stream([page], pre_skip=312))) == 10_000


@pytest.mark.parametrize("config", range(32))
def test_the_length_that_an_opus_packet_tells_is_what_it_decodes_to(config: int) -> None:
    decoder = PacketDecoder("Ogg Opus", "libopus", opus_head())
    for tail in ([0], [1], [2, 0], [3, 2]):
        packet = bytes([config << 3 | tail[0], *tail[1:]])
        assert sum(map(len, decoder.decode(packet))) == packet_samples(packet) > 0


def test_a_recording_that_begins_in_the_middle_is_read_from_there() -> None:
    pages = [
        ogg_page([SILENT_20_MS] * 10, sequence=2, granule=9_600 + 480_000),
        ogg_page([SILENT_20_MS] * 10, sequence=3, granule=9_600 + 480_000 + 4_800, last=True),
    ]
    assert len(decode(opus_stream(pages))) == (9_600 + 4_800) // 3


def test_the_granule_position_of_vorbis_first_page_cuts_the_beginning() -> None:
    pages = split_ogg(encoded("OGG", "VORBIS", 3.0))
    audio = next(k for k, page in enumerate(pages) if page[6:14] != bytes(8))
    assert len(pages) > audio + 1  # the first page of audio is not the last one
    later = [*pages[:audio], *(moved(page, -300) for page in pages[audio:])]
    np.testing.assert_array_equal(decode(b"".join(later), OGG), decode(b"".join(pages), OGG)[300:])


def test_a_stream_that_is_cut_off_is_read_to_its_last_whole_page() -> None:
    data = encoded("OGG", "OPUS", 3.0)
    pages = split_ogg(data)
    decoder = StreamDecoder(OGG, limits=LIMITS)
    got = np.concatenate([pushed(decoder, b"".join(pages[:-1]) + pages[-1][:100]), decoder.finish()])
    whole = decode(data)
    np.testing.assert_array_equal(got[:-1_000], whole[: len(got) - 1_000])  # the filter's ringing
    assert len(got) > 16_000 and decoder.dropped_bytes == 100


def test_chained_streams_follow_one_another() -> None:
    first, second = encoded("OGG", "VORBIS", 1.0, 16_000), encoded("OGG", "VORBIS", 1.0, 44_100, 2)
    third = encoded("OGG", "OPUS", 1.0)
    expected = np.concatenate([decode(first), decode(second), decode(third)])
    decoder = StreamDecoder(AudioFormat(), limits=LIMITS)
    got = np.concatenate([pushed(decoder, first + second + third), decoder.finish()])
    np.testing.assert_array_equal(got, expected)
    assert decoder.received_s == pytest.approx(3.0)


def test_a_missing_page_is_found() -> None:
    pages = split_ogg(encoded("OGG", "OPUS", 5.0))
    assert len(pages) > 5
    with pytest.raises(InvalidAudio, match="page 3 is missing"):
        decode(b"".join(pages[:3] + pages[4:]))


@pytest.mark.parametrize("subtype", ["OPUS", "VORBIS"])
def test_a_flipped_bit_is_found(subtype: str) -> None:
    data = bytearray(encoded("OGG", subtype, 3.0))
    data[len(data) // 2] ^= 4
    with pytest.raises(InvalidAudio, match="checksum is wrong"):
        decode(bytes(data))


def test_the_checksum_is_oggs() -> None:
    page = ogg_page([b"packet"] * 3, sequence=5, granule=77)
    assert page_checksum(page[:22] + bytes(4) + page[26:]) == int.from_bytes(page[22:26], "little")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(encoded("OGG", "OPUS")[:40], "before its headers", id="libsndfile's, cut off"),
        (opus_stream([])[:-3], "before its headers"),
        (ogg_page([b"\x7fFLAC rest"], sequence=0, granule=0, first=True), "neither Opus nor Vorbis"),
        (ogg_page([opus_head(channels=9)], sequence=0, granule=0, first=True), "9 channels"),
        (ogg_page([opus_head()[:12]], sequence=0, granule=0, first=True), "too short"),
        (ogg_page([b"OpusHead\x10" + opus_head()[9:]], sequence=0, granule=0, first=True), "unknown version"),
        (ogg_page([SILENT_20_MS], sequence=0, granule=0), "has not begun"),
        (opus_stream([ogg_page([SILENT_20_MS], sequence=2, granule=960, serial=8)]), "has not begun"),
        (
            ogg_page([opus_head()], sequence=0, granule=0, first=True)
            + ogg_page([opus_head()], sequence=0, granule=0, serial=8, first=True),
            "several streams at once",
        ),
        (opus_stream([ogg_page([SILENT_20_MS], sequence=2, granule=960), b"not a page at all, but text"]), "no page"),
        (
            opus_stream([ogg_page([SILENT_20_MS], sequence=k, granule=960, last=True) for k in (2, 3)]),
            "after the last page",
        ),
        (
            opus_stream([HALF_A_PACKET, ogg_page([SILENT_20_MS], sequence=3, granule=960)]),
            "does not go on where the page before it stopped",
        ),
        (opus_stream([ogg_page([b"\xff" * 3], sequence=2, granule=960)]), "damaged packet"),
    ],
)
def test_ogg_that_is_broken_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(InvalidAudio, match=says):
        decode(data, OGG)


@pytest.mark.parametrize("rate", [0, 16_000, 48_000])
def test_the_rate_of_opus_is_the_originals_or_the_decoders(rate: int) -> None:
    assert len(decode(encoded("OGG", "OPUS"), AudioFormat(AudioEncoding.OGG_OPUS, rate))) == 16_000


def test_what_the_config_says_must_agree_with_the_header() -> None:
    with pytest.raises(RateMismatch, match="48000 or 16000"):
        decode(encoded("OGG", "OPUS"), AudioFormat(AudioEncoding.OGG_OPUS, 8_000))
    with pytest.raises(ChannelMismatch):
        decode(encoded("OGG", "VORBIS"), AudioFormat(AudioEncoding.OGG_OPUS, 0, 2))


@pytest.mark.parametrize(("subtype", "headers"), [("OPUS", 2), ("VORBIS", 3)])
def test_pictures_in_the_comments_are_not_held(subtype: str, headers: int) -> None:
    pages = split_ogg(encoded("OGG", subtype))
    # Headers end on a page of their own: audio begins with the first page that has a granule position.
    audio = next(k for k, page in enumerate(pages) if page[6:14] != bytes(8))
    packets = ogg_packets(pages[:audio])
    assert len(packets) == headers
    packets[1] += bytes(500_000)
    serial = int.from_bytes(pages[0][14:18], "little")
    header_pages = ogg_pages(packets[1:], sequence=1, serial=serial)
    audio_pages = [renumbered(page, 1 + len(header_pages) + k) for k, page in enumerate(pages[audio:])]
    decoder = StreamDecoder(OGG, limits=AudioLimits(max_header_bytes=20_000))
    tracemalloc.start()
    for page in [pages[0], *header_pages]:
        pushed(decoder, page)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    got = [pushed(decoder, page) for page in audio_pages]
    np.testing.assert_array_equal(np.concatenate([*got, decoder.finish()]), decode(encoded("OGG", subtype)))
    assert peak < 400_000
