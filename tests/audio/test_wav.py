"""WAV: strict about how to read samples, lenient about sizes that a pipe's writer cannot know."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest

from asr_service.audio import AudioLimits, StreamDecoder
from asr_service.errors import ChannelMismatch, InvalidAudio, NonFiniteSamples, RateMismatch
from asr_service.types import AudioEncoding, AudioFormat
from tests.audio.samples import LIMITS, chirp, chunk, decode, decode_pieces, encoded, fmt_chunk, oracle, pushed, riff

PCM = (chirp()[:, 0] * 32_767).astype("<i2")
DATA = PCM.tobytes()
EXPECTED = PCM.astype(np.float32) / 32_768
SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"]
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_kind_of_wav_equals_libsndfile(container: str, subtype: str, channels: int) -> None:
    data = encoded(container, subtype, channels=channels)
    expected, _ = oracle(data)
    np.testing.assert_array_equal(decode(data), expected)
    np.testing.assert_array_equal(decode(data, AudioFormat(AudioEncoding.WAV, 16_000, channels)), expected)


@pytest.mark.parametrize(
    ("riff_size", "data_size"),
    [
        *itertools.product([0, 36, 0xFFFFFFFF], [0, 0xFFFFFFFF, 0x7FFFF000, len(DATA) + 1]),
        *itertools.product([0x7FFFFFFF, len(DATA) + 36], [0, 0xFFFFFFFF, 0x7FFFF000, len(DATA) + 1]),
    ],
)
def test_sizes_of_a_streamed_wav_are_not_believed(riff_size: int, data_size: int) -> None:
    wav = riff(fmt_chunk(), chunk(b"data", DATA, size=data_size), size=riff_size)
    np.testing.assert_array_equal(decode(wav), EXPECTED)
    np.testing.assert_array_equal(decode_pieces([bytes([byte]) for byte in wav]), EXPECTED)


@pytest.mark.parametrize("samples", range(5))
def test_a_few_samples_of_unknown_size_are_all_read(samples: int) -> None:
    wav = riff(fmt_chunk(), chunk(b"data", DATA[: 2 * samples], size=0), size=36 + 2 * samples)
    np.testing.assert_array_equal(decode(wav), EXPECTED[:samples])


def test_a_truncated_wav_is_read_to_its_last_whole_sample() -> None:
    wav = riff(fmt_chunk(), chunk(b"data", DATA))[:-101]
    decoder = StreamDecoder(AudioFormat(), limits=LIMITS)
    got = np.concatenate([pushed(decoder, wav), decoder.finish()])
    np.testing.assert_array_equal(got, EXPECTED[:-51])
    assert decoder.dropped_bytes == 1


def test_chunks_around_the_data_are_no_audio() -> None:
    wav = riff(
        chunk(b"JUNK", bytes(301)), fmt_chunk(), chunk(b"LIST", b"INFO"), chunk(b"data", DATA), chunk(b"id3 ", DATA)
    )
    np.testing.assert_array_equal(decode(wav), EXPECTED)
    np.testing.assert_array_equal(decode_pieces([wav[k : k + 1_000] for k in range(0, len(wav), 1_000)]), EXPECTED)


def test_chunks_behind_the_data_of_an_rf64_are_no_audio() -> None:
    sizes = chunk(b"ds64", struct.pack("<QQQI", 3 * len(DATA), len(DATA), len(PCM), 0))
    data = chunk(b"data", DATA, size=0xFFFFFFFF)
    wav = riff(sizes, fmt_chunk(), data, chunk(b"id3 ", DATA), size=0xFFFFFFFF, magic=b"RF64")
    np.testing.assert_array_equal(decode(wav), EXPECTED)


def test_a_chunk_of_odd_size_is_padded() -> None:
    np.testing.assert_array_equal(decode(riff(fmt_chunk(tail=b"\1"), chunk(b"data", DATA))), EXPECTED)


def test_an_empty_data_chunk_before_tags_is_empty_audio() -> None:
    wav = riff(fmt_chunk(), chunk(b"data", b""), chunk(b"LIST", bytes(400)))
    assert len(decode(wav)) == len(decode_pieces([bytes([byte]) for byte in wav])) == 0


@pytest.mark.parametrize(
    ("wav", "says"),
    [
        (riff(fmt_chunk()), "before its data chunk"),
        (riff(), "before its fmt chunk"),
        (b"RIFF", "before its fmt chunk"),
        (riff(chunk(b"data", DATA), fmt_chunk()), "data chunk comes before its fmt"),
        (riff(fmt_chunk(block_align=0), chunk(b"data", DATA)), "block_align is 0"),
        (riff(fmt_chunk(bits=0), chunk(b"data", DATA)), "with 0 bits"),
        (riff(fmt_chunk(bits=7), chunk(b"data", DATA)), "with 7 bits"),
        (riff(fmt_chunk(bits=64), chunk(b"data", DATA)), "with 64 bits"),
        (riff(fmt_chunk(tag=0x55), chunk(b"data", DATA)), "format tag 0x0055"),
        (riff(fmt_chunk(rate=0), chunk(b"data", DATA)), "0 Hz"),
        (riff(fmt_chunk(rate=96_000), chunk(b"data", DATA)), "96000 Hz; 8000 to 48000"),
        (riff(fmt_chunk(channels=0), chunk(b"data", DATA)), "0 channels"),
        (riff(fmt_chunk(channels=9), chunk(b"data", DATA)), "9 channels; 1 to 8"),
        (riff(fmt_chunk(tag=0xFFFE), chunk(b"data", DATA)), "extensible fmt chunk has 16 bytes"),
        (riff(fmt_chunk(tag=0xFFFE, tail=bytes(8) + b"\1\0" + bytes(14)), chunk(b"data", DATA)), "unknown extensible"),
        (riff(fmt_chunk(tag=0xFFFE, tail=bytes(8) + b"\x55\0" + GUID_TAIL), chunk(b"data", DATA)), "tag 0x0055"),
        (riff(chunk(b"fmt ", bytes(5)), chunk(b"data", DATA)), "fmt chunk has 5 bytes"),
        (riff(chunk(b"fmt ", bytes(2_000)), chunk(b"data", DATA)), "2000 bytes; at most 1024"),
        (riff(chunk(b"LIST", b"", size=0xFFFFFFF0)), "more than 16777216 bytes of other chunks"),
        (b"RIFX" + riff(fmt_chunk())[4:], "big-endian"),
        (encoded("FLAC"), "looks like FLAC"),
        (b"just some words of text", "looks like text"),
    ],
)
def test_a_wav_that_cannot_be_read_says_why(wav: bytes, says: str) -> None:
    with pytest.raises(InvalidAudio, match=says) as caught:
        decode(wav, AudioFormat(AudioEncoding.WAV))
    assert caught.value.field == "audio"


def test_of_a_million_chunks_only_the_allowed_ones_are_read() -> None:
    decoder = StreamDecoder(AudioFormat(), limits=LIMITS)
    pushed(decoder, riff())
    for _ in range(256):
        pushed(decoder, chunk(b"JUNK", b""))
    with pytest.raises(InvalidAudio, match="more than 256 chunks"):
        pushed(decoder, chunk(b"JUNK", b"") * 1_000_000)


def test_a_rate_that_contradicts_the_header_is_refused() -> None:
    with pytest.raises(RateMismatch, match="is 16000, but the WAV header says 8000") as caught:
        decode(encoded("WAV", rate=8_000), AudioFormat(AudioEncoding.UNSPECIFIED, 16_000))
    assert caught.value.field == "config.sample_rate_hertz"


def test_a_channel_count_that_contradicts_the_header_is_refused() -> None:
    with pytest.raises(ChannelMismatch, match="is 1, but the WAV header says 2") as caught:
        decode(encoded("WAV", channels=2), AudioFormat(AudioEncoding.WAV, 0, 1))
    assert caught.value.field == "config.audio_channel_count"


def test_a_double_beyond_float32_is_refused() -> None:
    wav = riff(fmt_chunk(tag=3, bits=64), chunk(b"data", struct.pack("<3d", 0.0, 0.5, 1e300)))
    with pytest.raises(NonFiniteSamples, match="sample 2 "):
        decode(wav)


def test_metadata_before_the_data_is_skipped_without_holding_it() -> None:
    decoder = StreamDecoder(AudioFormat(), limits=AudioLimits(max_metadata_bytes=2**20))
    pushed(decoder, riff(fmt_chunk(), struct.pack("<4sI", b"JUNK", 900_000)))
    for _ in range(9):
        pushed(decoder, bytes(100_000))
    got = pushed(decoder, chunk(b"data", DATA))
    np.testing.assert_array_equal(got, EXPECTED)
