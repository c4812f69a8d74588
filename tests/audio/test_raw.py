"""Raw encodings: what arrives is what comes out, whatever is odd about it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray

from asr_service.audio import AudioLimits, StreamDecoder
from asr_service.errors import InvalidAudio, InvalidField, NonFiniteSamples
from asr_service.types import AudioEncoding, AudioFormat
from tests.audio.samples import LIMITS, chirp, decode, encoded, pushed, raw

SUBTYPES = {
    AudioEncoding.LINEAR16: "PCM_16",
    AudioEncoding.FLOAT32: "FLOAT",
    AudioEncoding.MULAW: "ULAW",
    AudioEncoding.ALAW: "ALAW",
}


@pytest.mark.parametrize("encoding", SUBTYPES)
def test_raw_samples_equal_libsndfiles(encoding: AudioEncoding) -> None:
    data = encoded("RAW", SUBTYPES[encoding])
    expected, _ = sf.read(
        io.BytesIO(data), dtype="float32", format="RAW", subtype=SUBTYPES[encoding], samplerate=16_000, channels=1
    )
    np.testing.assert_array_equal(decode(data, raw(encoding)), expected)


@pytest.mark.parametrize("encoding", [AudioEncoding.MULAW, AudioEncoding.ALAW])
def test_all_256_companded_codes_equal_libsndfiles(encoding: AudioEncoding) -> None:
    data = bytes(range(256))
    expected, _ = sf.read(
        io.BytesIO(data), dtype="float32", format="RAW", subtype=SUBTYPES[encoding], samplerate=16_000, channels=1
    )
    np.testing.assert_array_equal(decode(data, raw(encoding)), expected)


def test_an_odd_byte_is_carried_over_to_the_next_chunk() -> None:
    data = encoded("RAW", "PCM_16")[:2_001]
    decoder = StreamDecoder(raw(AudioEncoding.LINEAR16), limits=LIMITS)
    got = np.concatenate([pushed(decoder, data[:777]), pushed(decoder, data[777:]), decoder.finish()])
    np.testing.assert_array_equal(got, decode(data[:2_000], raw(AudioEncoding.LINEAR16)))
    assert decoder.dropped_bytes == 1


def test_received_time_counts_decoded_samples() -> None:
    decoder = StreamDecoder(raw(AudioEncoding.LINEAR16, 8_000), limits=LIMITS)
    assert decoder.received_s == 0.0
    pushed(decoder, bytes(8_000))
    assert decoder.received_s == 0.5


def test_channels_are_mixed_by_their_mean_or_one_is_selected() -> None:
    samples = chirp(channels=3)
    fmt = raw(AudioEncoding.FLOAT32, channels=3)
    np.testing.assert_allclose(decode(samples.tobytes(), fmt), samples.mean(axis=1), atol=1e-7)
    np.testing.assert_array_equal(decode(samples.tobytes(), fmt, channel=2), samples[:, 2])


@pytest.mark.parametrize("channel", [3, -1])
def test_a_channel_that_is_not_there_is_refused(channel: int) -> None:
    with pytest.raises(InvalidField, match=r"channel is|audio_channel is 4, but the audio has 3") as caught:
        decode(chirp(channels=3).tobytes(), raw(AudioEncoding.FLOAT32, channels=3), channel=channel)
    assert caught.value.field == "config.audio_channel"


@pytest.mark.parametrize("encoding", SUBTYPES)
@pytest.mark.parametrize("rate", [-1, 0, 1, 7_999, 48_001, 2**31 - 1])
def test_a_rate_that_is_unset_or_out_of_range_is_refused(encoding: AudioEncoding, rate: int) -> None:
    with pytest.raises(InvalidField, match="sample_rate_hertz") as caught:
        StreamDecoder(AudioFormat(encoding, rate), limits=LIMITS)
    assert caught.value.field == "config.sample_rate_hertz"


@pytest.mark.parametrize("channels", [-1, 9, 255])
def test_a_channel_count_out_of_range_is_refused(channels: int) -> None:
    with pytest.raises(InvalidField, match="1 to 8") as caught:
        StreamDecoder(raw(AudioEncoding.LINEAR16, channels=channels), limits=LIMITS)
    assert caught.value.field == "config.audio_channel_count"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, -101.0])
def test_float_samples_that_are_no_audio_are_refused_by_index(value: float) -> None:
    samples = chirp().copy()
    samples[12_345] = value
    decoder = StreamDecoder(raw(AudioEncoding.FLOAT32), limits=LIMITS)
    pushed(decoder, samples[:9_000].tobytes())
    with pytest.raises(NonFiniteSamples, match=r"sample 12345 .*within ±100$"):
        pushed(decoder, samples[9_000:].tobytes())


def test_floats_in_the_scale_of_integers_are_refused_and_ten_times_full_scale_is_taken() -> None:
    samples, fmt = chirp(), raw(AudioEncoding.FLOAT32)
    with pytest.raises(NonFiniteSamples, match="within ±100"):
        decode((samples * np.float32(5_000)).tobytes(), fmt)
    loud = samples * np.float32(30)
    np.testing.assert_array_equal(decode(loud.tobytes(), fmt), loud[:, 0])


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("size", [640, 64_000, 1 << 20])
def test_what_comes_before_a_bad_sample_does_not_depend_on_the_split(rate: int, size: int) -> None:
    samples = np.tile(chirp(channels=2), (10, 1))
    samples[150_000, 1] = np.nan
    data, fmt = samples.tobytes(), raw(AudioEncoding.FLOAT32, rate, 2)
    decoder = StreamDecoder(fmt, limits=LIMITS)
    got: list[NDArray[np.float32]] = []
    with pytest.raises(NonFiniteSamples, match=r"sample 150000 \(channel 2\) is nan"):
        got.extend(block for k in range(0, len(data), size) for block in decoder.blocks(data[k : k + size]))
    expected = pushed(StreamDecoder(fmt, limits=LIMITS), samples[:150_000].tobytes())
    np.testing.assert_array_equal(np.concatenate(got), expected)


def test_an_error_comes_again_with_every_further_call() -> None:
    decoder = StreamDecoder(raw(AudioEncoding.FLOAT32), limits=LIMITS)
    bad = np.full(4, np.nan, np.float32).tobytes()
    with pytest.raises(NonFiniteSamples):
        pushed(decoder, bad)
    with pytest.raises(NonFiniteSamples):
        pushed(decoder, chirp().tobytes())
    with pytest.raises(NonFiniteSamples):
        decoder.finish()


def test_a_decoder_whose_blocks_were_dropped_is_done() -> None:
    decoder = StreamDecoder(raw(AudioEncoding.LINEAR16, 8_000), limits=LIMITS)
    for _ in decoder.blocks(bytes(1_000_000)):
        break
    assert len(pushed(decoder, bytes(1_000_000))) == 0
    assert len(decoder.finish()) == 0


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        (b"RIFF\0\0\0\0WAVEfmt ", "WAV"),
        (b"RF64\xff\xff\xff\xffWAVEds64", "WAV"),
        (b"fLaC\0\0\0\x22", "FLAC"),
        (b"OggS\0\2", "OGG_OPUS"),
        (b"ID3\4\0\0\0\0\x0f\x7f", "MP3"),
    ],
)
@pytest.mark.parametrize("declared", [AudioEncoding.LINEAR16, AudioEncoding.MULAW])
def test_a_file_sent_as_raw_samples_is_refused(head: bytes, encoding: str, declared: AudioEncoding) -> None:
    told = rf"header of {encoding}, but config\.encoding is {declared.name}; set it to {encoding} or leave it unset"
    with pytest.raises(InvalidAudio, match=told):
        decode(head + bytes(100), raw(declared))


@pytest.mark.parametrize("head", [b"ID3\4\0\0\0\0\x0f\x80", b"ID3\xff\0\0\0\0\0\0", b"RIFF\0\0\0\0AVI ", b"Ogg\0"])
def test_samples_that_begin_nearly_like_a_file_are_samples(head: bytes) -> None:
    assert len(decode(head + bytes(100), raw(AudioEncoding.LINEAR16, 16_000))) == (len(head) + 100) // 2


@pytest.mark.parametrize("samples", [0, 1, 5, 6, 10, 100])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_a_handful_of_samples_is_fine(samples: int, rate: int) -> None:
    got = decode(bytes(2 * samples), raw(AudioEncoding.LINEAR16, rate))
    assert len(got) == pytest.approx(samples * 16_000 / rate, abs=1)


@pytest.mark.parametrize("pattern", [b"\x00\x00", b"\xff\x7f", b"\x00\x80"])
def test_extreme_samples_stay_within_full_scale(pattern: bytes) -> None:
    got = decode(pattern * 1_000, raw(AudioEncoding.LINEAR16))
    assert np.isfinite(got).all() and np.abs(got).max() <= 1.0


@pytest.mark.parametrize("name", ["max_duration_s", "max_header_bytes", "max_packet_bytes"])
def test_limits_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        AudioLimits(**{name: 0})
