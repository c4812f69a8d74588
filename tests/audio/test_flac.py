"""FLAC: exact, checked by its own checksums, and never trusted."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from asr_service.audio import StreamDecoder
from asr_service.audio.codec import PacketDecoder
from asr_service.audio.flac import parse_stream_info
from asr_service.audio.flac_frame import FrameHeader, parse_header
from asr_service.errors import ChannelMismatch, InvalidAudio, RateMismatch
from asr_service.types import AudioEncoding, AudioFormat
from tests.audio.samples import LIMITS, decode, encoded, flac_head, oracle, pushed, silent_flac_frame

FLAC = AudioFormat(AudioEncoding.FLAC)
TOTAL_SAMPLES_AT, MD5_AT = 8 + 13, 8 + 18


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def blind(data: bytes) -> bytes:
    """As written into a pipe: without totals and MD5."""
    packed = int.from_bytes(data[TOTAL_SAMPLES_AT - 3 : MD5_AT], "big") >> 36 << 36
    return patched(patched(data, TOTAL_SAMPLES_AT - 3, packed.to_bytes(8, "big")), MD5_AT, bytes(16))


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("channels", [1, 2, 5, 8])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_flac_equals_libsndfile(subtype: str, channels: int, rate: int) -> None:
    data = encoded("FLAC", subtype, 2.0, rate, channels)
    mono, _ = oracle(data)
    np.testing.assert_allclose(decode(data), soxr.resample(mono, rate, 16_000, "HQ"), atol=1e-6)


def test_a_frame_is_decoded_when_the_next_one_begins() -> None:
    data = encoded("FLAC", seconds=2.0)
    decoder = StreamDecoder(FLAC, limits=LIMITS)
    half = pushed(decoder, data[: len(data) // 2])
    assert len(half) >= 16_000 - 2 * 4_096


def test_flac_without_totals_and_md5_is_read_to_its_end() -> None:
    data = encoded("FLAC")
    np.testing.assert_array_equal(decode(blind(data)), decode(data))


@pytest.mark.parametrize("where", [0.35, 0.5, 0.75])
def test_a_flipped_bit_is_found_by_its_frame_alone(where: float) -> None:
    data = bytearray(blind(encoded("FLAC", seconds=2.0)))
    data[int(len(data) * where)] ^= 1
    with pytest.raises(InvalidAudio, match="FLAC: "):
        decode(bytes(data))


@pytest.mark.parametrize("where", [0.1, 0.35, 0.5, 0.75, 0.999])
@pytest.mark.parametrize("bit", [1, 128])
def test_a_flipped_bit_is_found(where: float, bit: int) -> None:
    data = bytearray(encoded("FLAC", seconds=2.0))
    data[int(len(data) * where)] ^= bit
    with pytest.raises(InvalidAudio, match="FLAC: "):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (patched(encoded("FLAC"), MD5_AT, bytes(15) + b"\1"), "MD5"),
        (patched(encoded("FLAC"), TOTAL_SAMPLES_AT + 3, b"\xff\xff"), "promises 65535 samples, but it has 16000"),
        (patched(encoded("FLAC"), TOTAL_SAMPLES_AT + 3, b"\0\1"), "promises 1 samples, but it has 16000"),
        (encoded("FLAC")[: len(encoded("FLAC")) // 2], "frame 1, its last, is cut off or damaged"),
        (encoded("FLAC")[:30], "before its metadata"),
        (flac_head(rate=655_350), "655350 Hz; 8000 to 48000"),
        (flac_head(rate=0), "0 Hz"),
        (flac_head() + b"no frame at all, but some text", "no frame begins where frame 0 must"),
        (b"fLaC\x84\0\0\4abcd", "first metadata block is not STREAMINFO"),
        (
            b"fLaC\0\0\0\x22" + flac_head()[8:] + b"\6\xff\xff\xff" + b"\6\xff\xff\xff".join([bytes(2**24 - 1)] * 2),
            "bytes",
        ),
        (flac_head(block=15) + silent_flac_frame(0, 15), "blocks of 15 samples"),
    ],
)
def test_flac_that_lies_or_is_cut_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(InvalidAudio, match=says):
        decode(data, FLAC)


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param((MD5_AT, bytes(15) + b"\1"), id="MD5"),
        pytest.param((TOTAL_SAMPLES_AT + 3, b"\xff\xff"), id="samples"),
    ],
)
def test_what_is_wrong_only_at_the_end_costs_no_samples(lie: tuple[int, bytes]) -> None:
    data = encoded("FLAC", seconds=2.0)
    decoder = StreamDecoder(FLAC, limits=LIMITS)
    heard = list(decoder.blocks(patched(data, *lie)))
    with pytest.raises(InvalidAudio, match="FLAC: "):
        heard.extend(decoder.rest())  # takes one after the other
    np.testing.assert_array_equal(np.concatenate(heard), decode(data))
    with pytest.raises(InvalidAudio, match="FLAC: "):
        decoder.finish()


def test_what_looks_like_many_next_frames_is_tried_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    original, sizes = PacketDecoder.decode, list[int]()

    def decode_packet(decoder: PacketDecoder, packet: bytes) -> list[NDArray[np.generic]]:
        sizes.append(len(packet))
        return original(decoder, packet)

    monkeypatch.setattr(PacketDecoder, "decode", decode_packet)
    header = silent_flac_frame(1)[:8]
    with pytest.raises(InvalidAudio, match="FLAC: "):
        decode(flac_head() + silent_flac_frame(0)[:-1] + header * 1_000)
    assert 1 < len(sizes) < 10


@pytest.mark.parametrize("piece", [2**20, 10_000])
def test_what_looks_like_many_frames_is_searched_no_further_than_a_frame_can_reach(
    monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    looks = 0

    def look(data: bytes) -> FrameHeader | None:
        nonlocal looks
        looks += 1
        return parse_header(data)

    monkeypatch.setattr("asr_service.audio.flac.parse_header", look)
    head = flac_head(block=4_096)
    largest = parse_stream_info(head[8:]).max_frame_bytes
    data = head + silent_flac_frame(0, 4_096)[:-2] + b"\xff\xf8" * 500_000
    decoder = StreamDecoder(FLAC, limits=LIMITS)
    pieces = [data[start : start + piece] for start in range(0, len(data), piece)]
    with pytest.raises(InvalidAudio, match=f"no frame follows it within {largest} bytes"):
        np.concatenate([pushed(decoder, each) for each in pieces])
    assert looks <= largest // 2 + 1


def test_a_frame_that_is_missing_is_found() -> None:
    frames = [silent_flac_frame(number) for number in range(5)]
    assert len(decode(flac_head(rate=16_000) + b"".join(frames))) == 5 * 65_535
    with pytest.raises(InvalidAudio, match="FLAC: "):
        decode(flac_head(rate=16_000) + b"".join(frames[:2] + frames[3:]))


def test_what_the_config_says_must_agree_with_the_header() -> None:
    with pytest.raises(RateMismatch):
        decode(encoded("FLAC"), AudioFormat(AudioEncoding.FLAC, 8_000))
    with pytest.raises(ChannelMismatch):
        decode(encoded("FLAC"), AudioFormat(AudioEncoding.FLAC, 16_000, 2))
