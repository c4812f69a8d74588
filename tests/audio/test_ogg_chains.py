"""Chained Ogg streams: many with audio are read; those without cost work for few bytes, and are soon refused."""

from __future__ import annotations

from typing import Any

import pytest

from asr_service.audio import AudioLimits, StreamDecoder
from asr_service.audio.codec import PacketDecoder
from asr_service.errors import InvalidAudio
from tests.audio.samples import (
    ANY,
    LIMITS,
    OPUS_TAGS,
    decode,
    encoded,
    ogg_packets,
    ogg_page,
    opus_head,
    pushed,
    split_ogg,
)

SILENT_20_MS = b"\xf8\xff\xfe"


def link(packets: int, *, granule: int, pre_skip: int = 0) -> bytes:
    return b"".join(
        [
            ogg_page([opus_head(pre_skip=pre_skip)], sequence=0, granule=0, first=True),
            ogg_page([OPUS_TAGS], sequence=1, granule=0),
            ogg_page([SILENT_20_MS] * packets, sequence=2, granule=granule, last=True),
        ]
    )


def empty_vorbis() -> bytes:
    identification, _, codebooks = ogg_packets(split_ogg(encoded("OGG", "VORBIS")))[:3]
    headers = [b"\x03vorbis" + bytes(8) + b"\1", codebooks]
    first = ogg_page([identification], sequence=0, granule=0, first=True)
    return first + ogg_page(headers, sequence=1, granule=0, last=True)


EMPTY = {
    "a header": ogg_page([opus_head()], sequence=0, granule=0, first=True, last=True),
    "two headers": ogg_page([opus_head(), OPUS_TAGS], sequence=0, granule=0, first=True, last=True),
    "Vorbis": empty_vorbis(),
    "only encoder delay": link(2, granule=1_920, pre_skip=2_000),
    "one sample": link(1, granule=1),
}
AUDIO = link(50, granule=48_000)


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The codecs of the decoders made, each some tenth of a millisecond of work."""
    original, made = PacketDecoder.__init__, list[str]()

    def create(decoder: PacketDecoder, container: str, codec: str, *args: Any) -> None:
        made.append(codec)
        original(decoder, container, codec, *args)

    monkeypatch.setattr(PacketDecoder, "__init__", create)
    return made


@pytest.mark.parametrize("kind", EMPTY)
def test_streams_without_audio_in_a_row_are_soon_refused(kind: str, decoders: list[str]) -> None:
    decoder = StreamDecoder(ANY, limits=LIMITS)
    with pytest.raises(InvalidAudio, match=r"more than 8 chained streams in a row with less than 0\.02 s of audio"):
        pushed(decoder, AUDIO + EMPTY[kind] * (2**20 // len(EMPTY[kind])))
    assert len(decoders) <= 1 + 2 * 9
    assert decoder.received_s == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize("kind", ["a header", "two headers", "Vorbis"])
def test_a_stream_without_audio_has_no_decoder(kind: str, decoders: list[str]) -> None:
    pushed(StreamDecoder(ANY, limits=LIMITS), EMPTY[kind] * 8)
    assert not decoders


def test_a_few_streams_without_audio_are_no_harm() -> None:
    empties = EMPTY["a header"] * 4 + EMPTY["Vorbis"] * 4
    assert len(decode((AUDIO + empties) * 3 + AUDIO)) == 4 * 16_000


def test_many_short_streams_are_read() -> None:
    assert len(decode(link(1, granule=960) * 100)) == 100 * 320


def test_headers_of_streams_without_audio_are_bounded_together() -> None:
    empty = ogg_page([opus_head(), OPUS_TAGS + bytes(200)], sequence=0, granule=0, first=True, last=True)
    limits = AudioLimits(max_metadata_bytes=1_000)
    assert len(decode((AUDIO + empty * 3) * 3, ANY, limits)) == 3 * 16_000
    with pytest.raises(InvalidAudio, match="headers of more than 1000 bytes"):
        decode(AUDIO + empty * 5, ANY, limits)
