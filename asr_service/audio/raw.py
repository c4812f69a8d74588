"""Headerless audio: LINEAR16 (little endian), FLOAT32, mu-law, A-law. Rate and channels come from the config."""

from __future__ import annotations

from collections.abc import Iterator

from asr_service.audio.pcm import ALAW, FLOAT_32, MULAW, SIGNED_16, FrameReader
from asr_service.audio.sniff import HEADER_BYTES_OF_ANY, header_in
from asr_service.audio.source import AUDIO_FIELD, RATE_FIELD, Pcm
from asr_service.errors import InvalidAudio, InvalidField
from asr_service.types import AudioEncoding, AudioFormat

SAMPLE_FORMATS = {
    AudioEncoding.LINEAR16: SIGNED_16,
    AudioEncoding.FLOAT32: FLOAT_32,
    AudioEncoding.MULAW: MULAW,
    AudioEncoding.ALAW: ALAW,
}


class RawSource:
    """Raises InvalidField without a rate, InvalidAudio when the bytes are a file with a header after all."""

    def __init__(self, declared: AudioFormat) -> None:
        if declared.sample_rate_hz == 0:
            raise InvalidField(
                f"{RATE_FIELD} is unset; {declared.encoding.name} has no header, so its rate must be given",
                field=RATE_FIELD,
            )
        self._encoding = declared.encoding
        self._rate_hz = declared.sample_rate_hz
        self._frames = FrameReader(SAMPLE_FORMATS[declared.encoding], declared.channels or 1)
        self._head: bytes | None = b""

    @property
    def dropped_bytes(self) -> int:
        return self._frames.pending_bytes

    def feed(self, data: bytes) -> Iterator[Pcm]:
        if self._head is not None:
            self._head += data
            if len(self._head) < HEADER_BYTES_OF_ANY:
                return
            data, self._head = self._head, None
            # Read as samples a header is a click, and a 24-bit WAV or compressed audio is noise: better say so.
            if (header := header_in(data)) is not None:
                raise InvalidAudio(
                    f"audio: begins with a header of {header.name}, but config.encoding is {self._encoding.name};"
                    f" set it to {header.name} or leave it unset",
                    field=AUDIO_FIELD,
                )
        yield from self._samples(data)

    def finish(self) -> Iterator[Pcm]:
        if self._head:
            data, self._head = self._head, None
            yield from self._samples(data)

    def _samples(self, data: bytes) -> Iterator[Pcm]:
        for samples in self._frames.read(data):
            yield Pcm(samples, self._rate_hz)
