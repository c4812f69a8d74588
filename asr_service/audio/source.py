"""What every decoder of an encoding offers, and the checks of a container's header against the client's word.

Shapes: n samples per channel, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr_service.audio.limits import MAX_CHANNELS, MAX_SOURCE_RATE_HZ, MIN_SOURCE_RATE_HZ
from asr_service.errors import ChannelMismatch, InvalidAudio, InvalidField, RateMismatch
from asr_service.types import AudioFormat

RATE_FIELD = "config.sample_rate_hertz"
CHANNELS_FIELD = "config.audio_channel_count"
CHANNEL_FIELD = "config.audio_channel"
AUDIO_FIELD = "audio"


@dataclass(frozen=True, slots=True)
class Pcm:
    """A stretch of decoded audio: `samples` float32 of shape (n, C), full scale 1.0, at `rate_hz`."""

    samples: NDArray[np.float32]
    rate_hz: int


class PcmSource(Protocol):
    """An incremental decoder. The concatenation of all it yields depends on the bytes, never on how they were split.

    The iterators are lazy, so that a small input that decodes to hours is never held as a whole. Each must be exhausted
    before the next call.
    """

    @property
    def dropped_bytes(self) -> int:
        """Bytes of an incomplete last sample, frame or page; known after `finish`."""
        ...

    def feed(self, data: bytes) -> Iterator[Pcm]: ...

    def finish(self) -> Iterator[Pcm]: ...


def invalid(container: str, problem: str) -> InvalidAudio:
    return InvalidAudio(f"audio: {container}: {problem}", field=AUDIO_FIELD)


def check_declared(declared: AudioFormat) -> None:
    """Raise InvalidField where the client's own rate or channel count is out of range; 0 means unset."""
    rate, channels = declared.sample_rate_hz, declared.channels
    if rate != 0 and not MIN_SOURCE_RATE_HZ <= rate <= MAX_SOURCE_RATE_HZ:
        raise InvalidField(
            f"{RATE_FIELD} is {rate}; it must be {MIN_SOURCE_RATE_HZ} to {MAX_SOURCE_RATE_HZ},"
            " or unset where the audio has a header",
            field=RATE_FIELD,
        )
    if not 0 <= channels <= MAX_CHANNELS:
        raise InvalidField(
            f"{CHANNELS_FIELD} is {channels}; it must be 1 to {MAX_CHANNELS}, or unset", field=CHANNELS_FIELD
        )


def check_header(declared: AudioFormat, container: str, rates_hz: tuple[int, ...], channels: int) -> None:
    """Compare a header with the limits and with what the client declared.

    Args:
        declared: the client's format; 0 means unset.
        container: its name in messages.
        rates_hz: the rate to decode at, then other rates that the header also names (Opus has two).
        channels: as in the header.

    Raises:
        InvalidAudio, RateMismatch, ChannelMismatch.
    """
    rate = rates_hz[0]
    if not MIN_SOURCE_RATE_HZ <= rate <= MAX_SOURCE_RATE_HZ:
        raise invalid(
            container,
            f"the header says {rate} Hz; {MIN_SOURCE_RATE_HZ} to {MAX_SOURCE_RATE_HZ} Hz are supported",
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise invalid(container, f"the header says {channels} channels; 1 to {MAX_CHANNELS} are supported")
    if declared.sample_rate_hz and declared.sample_rate_hz not in rates_hz:
        names = " or ".join(str(r) for r in rates_hz if r)
        raise RateMismatch(
            f"{RATE_FIELD} is {declared.sample_rate_hz}, but the {container} header says {names}; leave it unset to use"
            " the header",
            field=RATE_FIELD,
        )
    if declared.channels and declared.channels != channels:
        raise ChannelMismatch(
            f"{CHANNELS_FIELD} is {declared.channels}, but the {container} header says {channels}; leave it unset to"
            " use the header",
            field=CHANNELS_FIELD,
        )
