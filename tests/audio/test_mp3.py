"""MP3: libsndfile's samples, without the encoder's delay and padding; tags are skipped, damage is found."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import soxr

from asr_service.audio import AudioLimits, StreamDecoder
from asr_service.audio.mpeg_frame import parse_header
from asr_service.errors import ChannelMismatch, InvalidAudio, RateMismatch
from asr_service.types import AudioEncoding, AudioFormat
from tests.audio.samples import ID3V1, LIMITS, ape, decode, decode_pieces, encoded, id3, lyrics, oracle, pushed

MP3 = AudioFormat(AudioEncoding.MP3)


def frames(data: bytes) -> list[bytes]:
    cut = []
    while data:
        header = parse_header(data)
        assert header is not None
        cut.append(data[: header.size])
        data = data[header.size :]
    return cut


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_mp3_equals_libsndfile(rate: int, channels: int) -> None:
    data = encoded("MP3", None, 2.0, rate, channels)
    mono, _ = oracle(data)
    assert len(mono) == 2 * rate
    np.testing.assert_allclose(decode(data, MP3), soxr.resample(mono, rate, 16_000, "HQ"), atol=1e-4)


def test_tags_before_and_after_are_no_audio() -> None:
    data = encoded("MP3")
    tagged = id3(3_000) + bytes(3_000) + id3(5) + bytes(5) + data + ID3V1
    np.testing.assert_array_equal(decode(tagged), decode(data))


TAGS = {
    "ID3v1": ID3V1,
    "ID3v2": id3(20_000) + b"\xff\xfb\x90\x64" * 5_000,
    "ID3v2 with a footer": b"ID3\4\0\x10" + id3(9)[6:] + bytes(9) + b"3DI\4\0\x10\0\0\0\x09",
    "APEv2": ape(20_001),
    "APE, a footer alone": ape(0)[32:],
    "Lyrics3": lyrics(4_000, b"LYRICSEND"),
    "Lyrics3v2": lyrics(20_000),
    "all, then the next file's": lyrics(3_000) + ape(300) + ID3V1 + id3(7) + bytes(7),
}


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_between_two_files_costs_neither_a_sample(tag: str) -> None:
    one, two = encoded("MP3"), encoded("MP3", seconds=0.5)
    expected = decode(one + two, MP3)
    decoder = StreamDecoder(MP3, limits=LIMITS)
    got = np.concatenate([pushed(decoder, one + TAGS[tag] + two), decoder.finish()])
    np.testing.assert_array_equal(got, expected)
    assert decoder.dropped_bytes == 0
    joined = one + TAGS[tag] + two
    np.testing.assert_array_equal(decode_pieces([joined[k : k + 7] for k in range(0, len(joined), 7)], MP3), expected)


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_at_the_end_is_no_damage_even_cut_off(tag: str, cut: int) -> None:
    decoder = StreamDecoder(MP3, limits=LIMITS)
    got = np.concatenate([pushed(decoder, encoded("MP3") + TAGS[tag][: len(TAGS[tag]) - cut]), decoder.finish()])
    np.testing.assert_array_equal(got, decode(encoded("MP3")))
    assert decoder.dropped_bytes == 0


def test_what_begins_like_a_tag_at_the_very_end_is_dropped() -> None:
    decoder = StreamDecoder(MP3, limits=LIMITS)
    got = np.concatenate([pushed(decoder, encoded("MP3") + b"LYRICS"), decoder.finish()])
    np.testing.assert_array_equal(got, decode(encoded("MP3")))
    assert decoder.dropped_bytes == 6


@pytest.mark.parametrize("piece", [2**20, 5_000])
def test_lyrics_are_not_held_and_must_end(piece: int) -> None:
    def push(size: int) -> int:
        decoder = StreamDecoder(MP3, limits=LIMITS)
        data = encoded("MP3") + lyrics(size) + encoded("MP3")
        tracemalloc.start()
        try:
            count = sum(len(pushed(decoder, data[k : k + piece])) for k in range(0, len(data), piece))
            assert piece > 5_000 or tracemalloc.get_traced_memory()[1] < 2**19
        finally:
            tracemalloc.stop()
        return count + len(decoder.finish())

    assert push(999_000) == len(decode(encoded("MP3") * 2))
    with pytest.raises(InvalidAudio, match="Lyrics3 tag that does not end within 1000020 bytes"):
        push(1_000_200)


@pytest.mark.parametrize(("tag", "says"), [(ID3V1, "ID3v1"), (id3(118) + bytes(118), "ID3"), (ape(64), "APE")])
def test_tags_in_a_row_have_one_limit_together(tag: bytes, says: str) -> None:
    limits = AudioLimits(max_metadata_bytes=len(tag) * 3)
    few = (encoded("MP3") + tag * 3) * 2
    np.testing.assert_array_equal(decode(few, MP3, limits), decode(encoded("MP3") * 2))
    with pytest.raises(InvalidAudio, match=rf"{says} tag of \d+ bytes; at most {len(tag) * 3} bytes of tags in a row"):
        decode(encoded("MP3") + tag * 4, MP3, limits)


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
        (id3(100_000) + encoded("MP3"), "ends inside a tag, before its first frame"),
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
