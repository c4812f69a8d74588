"""An unset encoding is read from the header, or refused with a word on what the bytes look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asr_service.audio import StreamDecoder, read_file
from asr_service.errors import EncodingUnknown, InvalidAudio
from asr_service.types import AudioEncoding, AudioFormat
from tests.audio.samples import LIMITS, chirp, decode, encoded, id3, pushed

CONTAINERS = [AudioEncoding.WAV, AudioEncoding.FLAC, AudioEncoding.OGG_OPUS, AudioEncoding.MP3]
NOT_AUDIO = {
    "text": b"It was a dark and stormy night; the rain fell in torrents.\n" * 9,
    "UTF-16": "\ufeff".encode("utf-16-le") + "words".encode("utf-16-le") * 50,
    "PNG": b"\x89PNG\r\n\x1a\n" + bytes(400),
    "ELF": b"\x7fELF\x02\x01\x01" + bytes(400),
    "zip": b"PK\x03\x04\x14\0" + bytes(400),
    "MP4": b"\0\0\0\x20ftypM4A " + bytes(400),
    "SPHERE": b"NIST_1A\n   1024\n" + b" " * 1008 + bytes(400),
    "zeros": bytes(400),
    "one header of an MP3 frame": b"\xff\xfb\x90\x64" + bytes(2_000),
    "RIFF that is no WAVE": b"RIFF\x10\0\0\0AVI LIST" + bytes(400),
    "one byte": b"R",
}
EXPECTED_WORDS = {"SPHERE": "NIST SPHERE", "MP4": "MP4", "PNG": "PNG", "ELF": "ELF", "zip": "zip", "text": "text"}


@pytest.mark.parametrize(
    "container", [("WAV", None), ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)]
)
def test_a_container_is_recognised_by_its_header(container: tuple[str, str | None]) -> None:
    got = decode(encoded(*container))
    assert len(got) == 16_000
    assert np.corrcoef(got, chirp()[:, 0])[0, 1] > 0.98


@pytest.mark.parametrize("kind", NOT_AUDIO)
def test_bytes_that_are_no_audio_are_refused(kind: str) -> None:
    with pytest.raises(EncodingUnknown, match=EXPECTED_WORDS.get(kind, "begins with|looks like")) as caught:
        decode(NOT_AUDIO[kind])
    assert caught.value.field == "config.encoding"


@pytest.mark.parametrize("encoding", CONTAINERS)
@pytest.mark.parametrize("kind", NOT_AUDIO)
def test_bytes_that_are_not_the_container_they_are_said_to_be_are_refused(kind: str, encoding: AudioEncoding) -> None:
    with pytest.raises(InvalidAudio, match=r"^audio: "):
        decode(NOT_AUDIO[kind], AudioFormat(encoding))


@pytest.mark.parametrize("encoding", [*CONTAINERS, AudioEncoding.UNSPECIFIED])
def test_zero_bytes_of_a_container_are_refused(encoding: AudioEncoding) -> None:
    with pytest.raises(InvalidAudio, match="empty"):
        decode(b"", AudioFormat(encoding))


@pytest.mark.parametrize("size", [5, 2_000, 300_000])
@pytest.mark.parametrize(
    ("container", "encoding"), [("FLAC", AudioEncoding.FLAC), ("MP3", AudioEncoding.MP3), ("FLAC", None), ("MP3", None)]
)
def test_flac_and_mp3_are_read_behind_id3_tags(container: str, encoding: AudioEncoding | None, size: int) -> None:
    tagged = (id3(size) + b"\xff\xfb\x90\x64" * (size // 4) + bytes(size % 4)) * 2 + encoded(container)
    fmt = AudioFormat() if encoding is None else AudioFormat(encoding)
    np.testing.assert_array_equal(decode(tagged, fmt), decode(encoded(container)))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (id3(10) + bytes(10) + NOT_AUDIO["text"], "no MP3 frame found: it looks like text"),
        (id3(10) + bytes(10) + encoded("WAV"), "no MP3 frame within 8192 bytes: it looks like RIFF"),
        (id3(10) + bytes(10), "no MP3 frame found"),
        (id3(100) + bytes(99), "ends inside its ID3 tag"),
        (b"ID3\4\0\0\0\0", "ends inside its ID3 tag"),
        (b"ID3\4\0\0\xff\0\0\0" + bytes(90), "its ID3 tag is broken"),
        (id3(100_000_000), "an ID3 tag of 100000010 bytes; at most 16777216"),
    ],
)
def test_what_is_no_audio_behind_an_id3_tag_is_told(data: bytes, says: str) -> None:
    with pytest.raises(InvalidAudio, match=says):
        decode(data)


def test_flac_that_ends_inside_its_id3_tag_is_refused() -> None:
    with pytest.raises(InvalidAudio, match="ends before its metadata"):
        decode(id3(100) + bytes(50), AudioFormat(AudioEncoding.FLAC))


def test_not_audio_is_refused_at_its_first_bytes() -> None:
    decoder = StreamDecoder(AudioFormat(), limits=LIMITS)
    with pytest.raises(EncodingUnknown):
        pushed(decoder, NOT_AUDIO["text"][:16])


def test_a_file_equals_its_bytes_and_an_error_names_it(tmp_path: Path) -> None:
    good, bad, empty = tmp_path / "good.flac", tmp_path / "bad.wav", tmp_path / "empty.wav"
    stereo = tmp_path / "stereo.flac"
    good.write_bytes(encoded("FLAC"))
    np.testing.assert_array_equal(read_file(good, limits=LIMITS), decode(encoded("FLAC")))
    stereo.write_bytes(encoded("FLAC", channels=2))
    second = decode(encoded("FLAC", channels=2), channel=1)
    np.testing.assert_array_equal(read_file(stereo, limits=LIMITS, channel=1), second)
    bad.write_bytes(NOT_AUDIO["text"])
    with pytest.raises(EncodingUnknown, match=r"bad\.wav.*looks like text"):
        read_file(bad, limits=LIMITS)
    empty.touch()
    with pytest.raises(InvalidAudio, match=r"empty\.wav.*0 bytes"):
        read_file(empty, limits=LIMITS)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none.wav", limits=LIMITS)
