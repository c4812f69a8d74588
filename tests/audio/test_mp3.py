"""MP3: libsndfile's samples, without the encoder's delay and padding; tags are skipped, damage is found."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from asr_service.audio import AudioLimits, StreamDecoder
from asr_service.audio.mpeg_frame import parse_header
from asr_service.errors import ChannelMismatch, InvalidAudio, RateMismatch
from asr_service.types import AudioEncoding, AudioFormat
from tests.audio.samples import LIMITS, decode, encoded, oracle, pushed

MP3 = AudioFormat(AudioEncoding.MP3)


def frames(data: bytes) -> list[bytes]:
    cut = []
    while data:
        header = parse_header(data)
        assert header is not None
        cut.append(data[: header.size])
        data = data[header.size :]
    return cut


def id3(size: int) -> bytes:
    return b"ID3\4\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_mp3_equals_libsndfile(rate: int, channels: int) -> None:
    data = encoded("MP3", None, 2.0, rate, channels)
    mono, _ = oracle(data)
    assert len(mono) == 2 * rate
    np.testing.assert_allclose(decode(data, MP3), soxr.resample(mono, rate, 16_000, "HQ"), atol=1e-4)


def test_tags_before_and_after_are_no_audio() -> None:
    data = encoded("MP3")
    tagged = id3(3_000) + bytes(3_000) + id3(5) + bytes(5) + data + b"TAG" + b"\xff\xfb\x90" * 41 + b"\0\0"
    np.testing.assert_array_equal(decode(tagged), decode(data))


@pytest.mark.parametrize("tag", [b"TAG", b"APETAGEX", b"LYRICSBEGIN"])
def test_a_large_tag_at_the_end_is_no_damage(tag: bytes) -> None:
    np.testing.assert_array_equal(decode(encoded("MP3") + tag + bytes(20_000)), decode(encoded("MP3")))


def test_a_first_frame_with_fraunhofers_header_is_no_audio() -> None:
    info, *rest = frames(encoded("MP3"))
    header = (info[:4] + bytes(32) + b"VBRI").ljust(len(info), b"\0")
    np.testing.assert_array_equal(decode(b"".join([header, *rest]), MP3), decode(b"".join(rest), MP3))


def test_a_tag_with_a_large_picture_is_skipped_without_holding_it() -> None:
    decoder = StreamDecoder(MP3, limits=AudioLimits(max_metadata_bytes=2**22))
    pushed(decoder, id3(4_000_000))
    for _ in range(40):
        assert len(pushed(decoder, b"\xff\xfb\x90\x64" * 25_000)) == 0
    got = [pushed(decoder, encoded("MP3")), decoder.finish()]
    np.testing.assert_array_equal(np.concatenate(got), decode(encoded("MP3")))


def test_a_lie_about_the_number_of_frames_does_not_change_the_audio() -> None:
    data = encoded("MP3")
    at = data.find(b"Xing") if b"Xing" in data[:200] else data.find(b"Info")
    lie = data[: at + 8] + (10**9).to_bytes(4, "big") + data[at + 12 :]
    got, honest = decode(lie), decode(data)
    # The padding at the end is cut only where the header tells the truth.
    assert 0 < len(got) - len(honest) < 1_152
    np.testing.assert_array_equal(got[: len(honest)], honest)


def test_a_truncated_mp3_is_read_to_its_last_whole_frame() -> None:
    data = encoded("MP3", seconds=2.0)
    decoder = StreamDecoder(MP3, limits=LIMITS)
    got = np.concatenate([pushed(decoder, data[: len(data) // 2 + 10]), decoder.finish()])
    np.testing.assert_array_equal(got, decode(data)[: len(got)])
    assert len(got) > 14_000 and decoder.dropped_bytes > 0


def test_a_broadcast_recorded_from_the_middle_is_read_from_its_first_whole_frame() -> None:
    data = b"".join(frames(encoded("MP3", seconds=2.0))[5:])
    assert len(decode(data[100:], MP3)) > 24_000


def test_the_channel_mode_may_change_in_the_padding_at_the_end() -> None:
    mono, stereo = (frames(encoded("MP3", None, 1.01, 16_000, channels)) for channels in (1, 2))
    got, first = decode(b"".join([*mono, stereo[5]]), MP3), decode(b"".join(mono), MP3)
    assert len(first) < len(got)
    np.testing.assert_array_equal(got[: len(first)], first)


def test_a_single_frame_is_an_mp3() -> None:
    assert len(decode(frames(encoded("MP3"))[5], MP3)) == 576


def test_a_short_damaged_place_is_stepped_over() -> None:
    cut = frames(encoded("MP3", seconds=2.0))
    data = b"".join(cut[:20]) + bytes(1_000) + b"".join(cut[20:])
    assert len(decode(data)) >= 32_000 - 576


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (id3(100_000_000), "ID3 tag of 100000010 bytes; at most 16777216"),
        (id3(100) + bytes(100), "no MP3 frame found"),
        (id3(100) + bytes(50_000), "no MP3 frame within 8192 bytes"),
        (b"ID3\4\0\0\xff\xff\xff\xff" + bytes(100), "ID3 tag is broken"),
        (id3(100_000) + encoded("MP3"), "ends inside its ID3 tag"),
        (encoded("MP3")[:2_000] + bytes(50_000), "out of step"),
        (encoded("MP3")[:30], "no MP3 frame found"),
    ],
)
def test_mp3_that_is_broken_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(InvalidAudio, match=says):
        decode(data, MP3)


def test_what_the_config_says_must_agree_with_the_header() -> None:
    with pytest.raises(RateMismatch):
        decode(encoded("MP3"), AudioFormat(AudioEncoding.MP3, 8_000))
    with pytest.raises(ChannelMismatch):
        decode(encoded("MP3"), AudioFormat(AudioEncoding.MP3, 16_000, 2))
