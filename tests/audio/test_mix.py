"""Channels mixed to one: their mean to the last bit, but the loudest where they cancel; the same for any split."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr_service.audio.mix import BLOCKS_PER_S, Mixer
from asr_service.types import AudioEncoding
from tests.audio.samples import OPUS_TAGS, chirp, decode, decode_pieces, encoded, ogg_page, opus_head, raw

RATE = 16_000
BLOCK = RATE // BLOCKS_PER_S


def noise(seconds: float, rms: float, channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    shape = (int(seconds * RATE), channels)
    return (np.random.default_rng(seed).standard_normal(shape) * rms).astype(np.float32)


def opposed(samples: NDArray[np.float32], gain: float = 1.0) -> NDArray[np.float32]:
    """(n, 1) to (n, 2), the second inverted."""
    return np.hstack([samples, np.float32(-gain) * samples])


def mean(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sum(samples, axis=1, dtype=np.float32) / np.float32(samples.shape[1])


def mixed(*pieces: NDArray[np.float32]) -> NDArray[np.float32]:
    mixer = Mixer(RATE, pieces[0].shape[1])
    return np.concatenate([*map(mixer.push, pieces), mixer.flush()])


def cut(data: st.DataObject, samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    cuts = data.draw(st.lists(st.integers(0, len(samples)), max_size=12))
    return [samples[a:b] for a, b in itertools.pairwise([0, *sorted(cuts), len(samples)])]


@pytest.mark.parametrize("gain", [1.0, 0.9, 1.1])
def test_of_channels_that_cancel_the_louder_is_taken(gain: float) -> None:
    samples = opposed(chirp(1.05), gain)
    np.testing.assert_array_equal(mixed(samples), samples[:, int(gain > 1)])


def test_an_inverted_channel_of_a_stream_loses_nothing() -> None:
    data = (opposed(chirp(1.0)) * 32_767).astype("<i2")
    got = decode(data.tobytes(), raw(AudioEncoding.LINEAR16, channels=2))
    np.testing.assert_array_equal(got, data[:, 0] / np.float32(32_768))


@settings(max_examples=50, deadline=None)
@given(data=st.data(), gains=st.lists(st.sampled_from([0.0, 1e-5, 0.1, 1.0]), min_size=2, max_size=8))
def test_ordinary_channels_give_their_mean_to_the_last_bit(data: st.DataObject, gains: list[float]) -> None:
    """As what they share and what each has alone, one of them silent, or all."""
    shared = chirp(0.5) * data.draw(st.sampled_from([0.0, 1.0]))
    samples = shared + noise(0.5, 0.1, len(gains)) * np.array(gains, np.float32)
    expected = samples[:, 0].copy()
    for k in range(1, len(gains)):
        expected += samples[:, k]
    np.testing.assert_array_equal(mixed(*cut(data, samples)), expected / np.float32(len(gains)))


SPANS = {
    "silence": np.zeros((3_000, 2), np.float32),
    "hiss": noise(0.2, 1e-4, 2),
    "inverted": opposed(chirp(0.3)),
    "nearly inverted": opposed(chirp(0.3), 0.75),
    "same": np.hstack([chirp(0.3)] * 2),
    "apart": noise(0.25, 0.1, 2, seed=1),
    "little": np.full((3, 2), 0.5, np.float32),
}


@settings(max_examples=100, deadline=None)
@given(data=st.data(), spans=st.lists(st.sampled_from(list(SPANS)), min_size=1, max_size=6))
def test_the_split_changes_nothing_wherever_channels_begin_and_end_to_cancel(
    data: st.DataObject, spans: list[str]
) -> None:
    samples = np.concatenate([SPANS[name] for name in spans])
    whole = mixed(samples)
    np.testing.assert_array_equal(mixed(*cut(data, samples)), whole)
    np.testing.assert_array_equal(mixed(*cut(data, np.asfortranarray(samples))), whole)
    assert len(whole) == len(samples)
    # What is taken is the mean or a channel, a whole block of it.
    for start in range(0, len(samples), BLOCK):
        block, got = samples[start : start + BLOCK], whole[start : start + BLOCK]
        assert any(np.array_equal(got, one) for one in (mean(block), block[:, 0], block[:, 1]))


def test_no_more_than_a_block_of_several_channels_and_nothing_of_one_is_held_back() -> None:
    stereo, single, chosen = Mixer(RATE, 2), Mixer(RATE, 1), Mixer(RATE, 2, channel=1)
    given_frames = got_frames = 0
    for _ in range(40):
        given_frames += 333
        got_frames += len(stereo.push(SPANS["same"][:333]))
        assert given_frames - got_frames < BLOCK
        assert len(single.push(SPANS["same"][:333, :1])) == len(chosen.push(SPANS["same"][:333])) == 333
    assert got_frames + len(stereo.flush()) == given_frames


def test_a_hum_that_cancels_before_they_speak_costs_no_speaker() -> None:
    hum, speech = opposed(noise(60, 1e-3)), noise(1, 0.1, 2, seed=1)
    got = mixed(np.concatenate([hum, speech]))
    np.testing.assert_array_equal(got[: len(hum)], hum[:, 0])
    np.testing.assert_array_equal(got[len(hum) :], mean(speech))


def test_hiss_of_each_channel_costs_no_word_of_an_inverted_one_and_short_pauses_switch_nothing() -> None:
    hiss = noise(142, 1e-4, 2)
    speech = np.zeros_like(hiss)
    for start in (RATE, 141 * RATE):
        speech[start : start + RATE] = opposed(chirp(1.0), 0.95)
    got, expected = mixed(speech + hiss), (speech + hiss)[:, 0]
    np.testing.assert_array_equal(got[RATE : 60 * RATE], expected[RATE : 60 * RATE])
    assert np.array_equal(got[130 * RATE : 140 * RATE], mean(hiss[130 * RATE : 140 * RATE]))  # forgotten by now
    np.testing.assert_array_equal(got[141 * RATE :], expected[141 * RATE :])


def test_channels_that_begin_or_cease_to_cancel_are_heard_of_within_a_minute() -> None:
    same, inverted = np.tile(SPANS["same"], (200, 1)), np.tile(SPANS["inverted"], (200, 1))
    got = mixed(np.concatenate([same, inverted, same]))
    n = len(same)
    np.testing.assert_array_equal(got[:n], same[:, 0])
    np.testing.assert_array_equal(got[2 * n - RATE : 2 * n], inverted[-RATE:, 0])
    np.testing.assert_array_equal(got[3 * n - RATE :], same[-RATE:, 0])


def test_what_lies_near_the_limit_does_not_go_to_and_fro() -> None:
    samples = np.concatenate([opposed(chirp(0.1), gain) for gain in [0.84, 0.7] * 10])  # left is 0.8 %, then up to 3 %
    np.testing.assert_array_equal(mixed(samples), samples[:, 0])


@pytest.mark.parametrize("silence", [0.0, 2.0**-17])
def test_silence_says_nothing(silence: float) -> None:
    quiet = opposed(np.full((BLOCK, 1), silence, np.float32))
    assert not mixed(quiet).any()


def test_a_chained_stream_of_other_channels_goes_on_where_the_last_one_ended() -> None:
    def link(channels: int, serial: int) -> bytes:
        return b"".join(
            [
                ogg_page([opus_head(channels)], sequence=0, granule=0, serial=serial, first=True),
                ogg_page([OPUS_TAGS], sequence=1, granule=0, serial=serial),
                ogg_page([b"\xf8\xff\xfe"] * 2, sequence=2, granule=1_920, serial=serial, last=True),
            ]
        )

    links = [link(2, 1), link(1, 2), link(2, 3)]
    assert len(decode(b"".join(links))) == sum(len(decode(one)) for one in links)


def test_stereo_files_of_lossy_codecs_equal_the_mean() -> None:
    data = encoded("OGG", "VORBIS", 1.0, 16_000, 2)
    channels = np.stack([decode(data, channel=k) for k in (0, 1)], 1)
    np.testing.assert_array_equal(decode_pieces([data[:5_000], data[5_000:]]), mean(channels))
