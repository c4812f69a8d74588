"""The promise of the streams: any split of the bytes gives the same samples as the whole."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_service.audio import StreamDecoder, read_file
from asr_service.types import AudioEncoding, AudioFormat
from tests.audio.samples import (
    ANY,
    ID3V1,
    LIMITS,
    ape,
    chirp,
    decode,
    decode_pieces,
    encoded,
    id3,
    lyrics,
    pushed,
    raw,
)

INTEGERS = (chirp(0.5, 44_100, 2) * 32_767).astype("<i2").tobytes()
STREAMS: dict[str, tuple[bytes, AudioFormat]] = {
    "LINEAR16, 44.1 kHz, stereo": (INTEGERS, raw(AudioEncoding.LINEAR16, 44_100, 2)),
    "FLOAT32, 44.1 kHz, one channel inverted": (
        (chirp(0.5, 44_100) * np.array([1, -1], np.float32)).tobytes(),
        raw(AudioEncoding.FLOAT32, 44_100, 2),
    ),
    "FLOAT32": (chirp(0.5).tobytes(), raw(AudioEncoding.FLOAT32)),
    "MULAW": (encoded("RAW", "ULAW", 0.5, 8_000), raw(AudioEncoding.MULAW, 8_000)),
    "ALAW": (encoded("RAW", "ALAW", 0.5, 8_000), raw(AudioEncoding.ALAW, 8_000)),
    "WAV, 24 bits, stereo": (encoded("WAV", "PCM_24", 0.5, 48_000, 2), ANY),
    "WAV, extensible float": (encoded("WAVEX", "FLOAT", 0.5, 22_050), ANY),
    "FLAC": (encoded("FLAC", None, 1.0, 16_000), ANY),
    "FLAC, stereo": (encoded("FLAC", None, 0.6, 44_100, 2), AudioFormat(AudioEncoding.FLAC)),
    "Ogg Opus": (encoded("OGG", "OPUS", 1.0), ANY),
    "Ogg Opus, stereo": (encoded("OGG", "OPUS", 1.0, 48_000, 2), AudioFormat(AudioEncoding.OGG_OPUS)),
    "Ogg Vorbis": (encoded("OGG", "VORBIS", 1.0, 44_100), ANY),
    "Ogg, chained": (encoded("OGG", "VORBIS", 0.5, 22_050) + encoded("OGG", "OPUS", 0.5), ANY),
    "MP3": (encoded("MP3", None, 1.0, 44_100, 2), ANY),
    "MP3, tagged and damaged": (
        b"ID3\4\0\0\0\0\0\7" + bytes(7) + encoded("MP3")[:2_000] + encoded("MP3")[2_100:] + b"TAG" + bytes(125),
        AudioFormat(AudioEncoding.MP3),
    ),
    "MP3, two with tags": (
        id3(7) + bytes(7) + encoded("MP3", None, 0.4) + lyrics(90) + ape(50) + ID3V1 + encoded("MP3", None, 0.4),
        ANY,
    ),
    "FLAC behind a tag": (id3(500) + bytes(500) + encoded("FLAC", None, 0.5), ANY),
}


@pytest.mark.parametrize("name", STREAMS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_random_splits_equal_the_whole(name: str, data: st.DataObject) -> None:
    encoded_bytes, fmt = STREAMS[name]
    places = st.integers(0, len(encoded_bytes)) | st.integers(0, 200)
    cuts = [0, *sorted(data.draw(st.lists(places, max_size=50))), len(encoded_bytes)]
    pieces = [encoded_bytes[a:b] for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(decode_pieces(pieces, fmt), decode(encoded_bytes, fmt))


@pytest.mark.parametrize("name", STREAMS)
def test_one_byte_at_a_time_equals_the_whole(name: str) -> None:
    encoded_bytes, fmt = STREAMS[name]
    encoded_bytes = encoded_bytes if "FLAC" in name or "Ogg" in name else encoded_bytes[:12_000]
    pieces = [encoded_bytes[k : k + 1] for k in range(len(encoded_bytes))]
    np.testing.assert_array_equal(decode_pieces(pieces, fmt), decode(encoded_bytes, fmt))


@pytest.mark.parametrize("name", STREAMS)
def test_a_file_equals_its_bytes(name: str, tmp_path: Path) -> None:
    encoded_bytes, fmt = STREAMS[name]
    path = tmp_path / "audio"
    path.write_bytes(encoded_bytes)
    np.testing.assert_array_equal(read_file(path, limits=LIMITS, fmt=fmt), decode_pieces([encoded_bytes], fmt))


@pytest.mark.parametrize("name", STREAMS)
def test_half_of_the_bytes_give_about_half_of_the_samples(name: str) -> None:
    """Incremental for real: nothing waits for the end."""
    encoded_bytes, fmt = STREAMS[name]
    encoded_bytes = encoded_bytes if "Ogg" not in name else encoded_bytes * 4
    pieces = [encoded_bytes[k : k + 500] for k in range(0, len(encoded_bytes), 500)]
    decoder = StreamDecoder(fmt, limits=LIMITS)
    first = sum(len(pushed(decoder, piece)) for piece in pieces[: 3 * len(pieces) // 4])
    rest = sum(len(pushed(decoder, piece)) for piece in pieces[3 * len(pieces) // 4 :]) + len(decoder.finish())
    assert first > (first + rest) / 4
