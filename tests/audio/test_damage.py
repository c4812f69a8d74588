"""Whatever the bytes are, the answer is samples or an error of ours; and it does not depend on their split."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr_service.errors import AsrError
from asr_service.types import AudioEncoding, AudioFormat
from tests.audio.samples import decode_pieces
from tests.audio.test_splits import STREAMS

CONTAINERS = ["WAV, extensible float", "FLAC", "Ogg Opus", "Ogg Vorbis", "Ogg, chained", "MP3", "MP3, two with tags"]
ENCODINGS = [
    AudioEncoding.UNSPECIFIED,
    AudioEncoding.WAV,
    AudioEncoding.FLAC,
    AudioEncoding.OGG_OPUS,
    AudioEncoding.MP3,
]


def outcome(pieces: list[bytes], fmt: AudioFormat) -> NDArray[np.float32] | type[AsrError]:
    try:
        return decode_pieces(pieces, fmt)
    except AsrError as error:
        return type(error)


@pytest.mark.parametrize("name", CONTAINERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_container_gives_samples_or_an_error_the_same_for_any_split(name: str, data: st.DataObject) -> None:
    encoded, fmt = STREAMS[name]
    damaged = bytearray(encoded)
    places = st.integers(0, len(encoded) - 1) | st.integers(0, 100)
    for place in data.draw(st.lists(places, max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    gone = data.draw(st.tuples(places, st.integers(0, 2_000)))
    del damaged[gone[0] : gone[0] + gone[1]]
    cuts = [0, *sorted(data.draw(st.lists(places, max_size=8))), len(damaged)]
    pieces = [bytes(damaged[a:b]) for a, b in itertools.pairwise(cuts)]
    whole, split = outcome([bytes(damaged)], fmt), outcome(pieces, fmt)
    if isinstance(whole, type) or isinstance(split, type):
        assert whole == split  # their messages may quote more or fewer bytes
    else:
        assert np.isfinite(whole).all()
        np.testing.assert_array_equal(whole, split)


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=60, deadline=None)
@given(
    head=st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"fLaC", b"OggS\0\2", b"ID3", b"\xff\xfb\x90\x64"]),
    tail=st.binary(),
)
def test_random_bytes_give_samples_or_an_error(encoding: AudioEncoding, head: bytes, tail: bytes) -> None:
    result = outcome([head + tail], AudioFormat(encoding))
    assert isinstance(result, type) or np.isfinite(result).all()
