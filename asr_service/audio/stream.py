"""Bytes of any encoding, in any pieces, to 16 kHz mono float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from asr_service.audio.buffer import ByteBuffer
from asr_service.audio.limits import MAX_ABS_SAMPLE, SNIFF_BYTES, AudioLimits
from asr_service.audio.mix import Mixer
from asr_service.audio.raw import SAMPLE_FORMATS, RawSource
from asr_service.audio.resample import Resampler
from asr_service.audio.sniff import identify, identify_tagged
from asr_service.audio.source import AUDIO_FIELD, CHANNEL_FIELD, Pcm, PcmSource, check_declared, invalid
from asr_service.audio.tags import TagSkipper
from asr_service.audio.wav import WavSource
from asr_service.errors import AsrError, AudioTooLong, InvalidAudio, InvalidField, NonFiniteSamples
from asr_service.types import AudioEncoding, AudioFormat

Samples = NDArray[np.float32]


def open_source(declared: AudioFormat, limits: AudioLimits) -> PcmSource:
    """The decoder for a known encoding.

    The compressed ones are imported when first used: raw streams and WAV never load FFmpeg's libraries.
    """
    match declared.encoding:
        case AudioEncoding.WAV:
            return WavSource(declared, limits)
        case AudioEncoding.FLAC:
            from asr_service.audio.flac import FlacSource

            return FlacSource(declared, limits)
        case AudioEncoding.OGG_OPUS:
            from asr_service.audio.ogg import OggSource

            return OggSource(declared, limits)
        case AudioEncoding.MP3:
            from asr_service.audio.mp3 import Mp3Source

            return Mp3Source(declared, limits)
        case AudioEncoding.UNSPECIFIED:
            return _SniffedSource(declared, limits)
        case _:
            assert declared.encoding in SAMPLE_FORMATS
            return RawSource(declared)


class _SniffedSource:
    """Holds the first bytes until they tell the encoding (at most SNIFF_BYTES), then is the decoder for it.

    ID3 tags before them are skipped, for what follows may be MP3 or FLAC.
    """

    def __init__(self, declared: AudioFormat, limits: AudioLimits) -> None:
        self._declared = declared
        self._limits = limits
        self._head = ByteBuffer()
        self._tags = TagSkipper(self._head, "ID3", limits)
        self._source: PcmSource | None = None

    @property
    def dropped_bytes(self) -> int:
        return self._source.dropped_bytes if self._source is not None else 0

    def feed(self, data: bytes) -> Iterator[Pcm]:
        if self._source is None:
            self._head.append(data)
            self._source = self._identify(complete=False)
            if self._source is None:
                return
            data = self._head.take_all()
        yield from self._source.feed(data)

    def finish(self) -> Iterator[Pcm]:
        if self._source is None:
            self._source = self._identify(complete=True)
            if self._source is None:
                raise invalid("ID3", "the audio ends inside its ID3 tag")
            yield from self._source.feed(self._head.take_all())
        yield from self._source.finish()

    def _identify(self, *, complete: bool) -> PcmSource | None:
        if not self._tags.skip(complete=complete):
            return None
        recognised = identify_tagged if self._tags.any_skipped else identify
        encoding = recognised(self._head.peek(SNIFF_BYTES), complete=complete)
        if encoding is None:
            return None
        declared = AudioFormat(encoding, self._declared.sample_rate_hz, self._declared.channels)
        return open_source(declared, self._limits)


class StreamDecoder:
    """Decodes one stream incrementally; never again from the start.

    The concatenation of what `blocks` and `finish` (or `rest`) give depends on the bytes alone, not on their split.
    After an error every further call raises it again.

    Args:
        fmt: what the client says; unset rate and channels come from the header, where there is one (else 1 channel).
        limits: what is refused.
        channel: the channel to recognise, counted from 0; None mixes all of them (see `Mixer`).

    Raises:
        InvalidField: a rate or channel outside what is supported, or a raw encoding without a rate.
    """

    def __init__(self, fmt: AudioFormat, *, limits: AudioLimits, channel: int | None = None) -> None:
        check_declared(fmt)
        if channel is not None and channel < 0:
            raise InvalidField(f"channel is {channel}; here channels count from 0", field=CHANNEL_FIELD)
        self._container = fmt.encoding not in SAMPLE_FORMATS
        self._source = open_source(fmt, limits)
        self._limits = limits
        self._channel = channel
        self._mixer: Mixer | None = None
        self._resampler: Resampler | None = None
        self._rate_hz = 0
        self._frames_at_rate = 0
        self._earlier_s = 0.0
        self._frames = 0
        self._received_bytes = 0
        self._running = False
        self._dropped = False
        self._finished = False
        self._error: AsrError | None = None

    @property
    def received_s(self) -> float:
        """Decoded stream time so far, in seconds; the mixer and the resampler hold back a little of it."""
        return self._earlier_s + (self._frames_at_rate / self._rate_hz if self._rate_hz else 0.0)

    @property
    def dropped_bytes(self) -> int:
        """Bytes at the end that made no whole sample, frame or page; known after `finish`, for the caller to log."""
        return self._source.dropped_bytes

    def blocks(self, data: bytes) -> Iterator[Samples]:
        """The 16 kHz mono samples that become available, in blocks of shape (n,) of at most a few seconds, each decoded
        when asked for: however much audio a few bytes hold, one block at a time is in memory.

        Exhaust it before the next call, or drop it: then the decoder is done, and whatever comes gives no samples.
        Samples before an error have been yielded when it is raised, but for what is held back.

        Raises:
            InvalidAudio or a child of it: EncodingUnknown, RateMismatch, ChannelMismatch, NonFiniteSamples;
                AudioTooLong beyond max_duration_s.
        """
        assert not self._finished or self._error is not None, "bytes after the end"
        self._received_bytes += len(data)
        return self._guarded(self._source.feed(data))

    def finish(self) -> Samples:
        """As `rest`, shape (n,)."""
        blocks = list(self.rest())
        return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)

    def rest(self) -> Iterator[Samples]:
        """The last blocks; no bytes can come after it. An error that shows only at the end costs no more samples
        than are held back.

        Raises:
            As `blocks`; InvalidAudio also where the audio ends too early, or is a container of 0 bytes.
        """
        assert not self._finished or self._error is not None, "finished twice"
        self._finished = True
        if self._container and self._received_bytes == 0:
            self._error = InvalidAudio("audio: is empty (0 bytes)", field=AUDIO_FIELD)
        return self._flushed(self._guarded(self._source.finish()))

    def _flushed(self, blocks: Iterator[Samples]) -> Iterator[Samples]:
        """The last blocks, and what was held back."""
        yield from blocks
        if not self._dropped:
            yield from self._held_back()

    def _held_back(self) -> Iterator[Samples]:
        """What the mixer and the resampler hold back."""
        if self._mixer is not None and self._resampler is not None:
            yield self._resampler.push(self._mixer.flush())
            yield self._resampler.flush()

    def _guarded(self, pcm: Iterator[Pcm]) -> Iterator[Samples]:
        if self._error is not None:
            raise self._error
        if self._dropped:
            return
        assert not self._running, "the blocks of the last chunk are still being read"
        self._running = True
        try:
            for stretch in pcm:
                yield from self._convert(stretch)
        except AsrError as error:
            self._error = error
            raise
        except GeneratorExit:
            self._dropped = True
            raise
        self._running = False

    def _convert(self, stretch: Pcm) -> Iterator[Samples]:
        samples = stretch.samples
        if len(samples) == 0:
            return
        if stretch.rate_hz != self._rate_hz:
            # The first stretch, or a chained stream of another rate.
            yield from self._held_back()
            self._earlier_s = self.received_s
            self._rate_hz, self._frames_at_rate = stretch.rate_hz, 0
            self._mixer, self._resampler = None, Resampler(stretch.rate_hz)
        assert self._resampler is not None
        channels = samples.shape[1]
        if self._mixer is None or self._mixer.channels != channels:
            if self._mixer is not None:
                yield self._resampler.push(self._mixer.flush())
            self._mixer = Mixer(stretch.rate_hz, channels, self._channel)
        room = int((self._limits.max_duration_s - self._earlier_s) * self._rate_hz) - self._frames_at_rate
        too_long = len(samples) > room
        samples = samples[: max(room, 0)]
        # Not a number fails every comparison, so this finds it too.
        is_good = np.abs(samples) <= MAX_ABS_SAMPLE
        bad = None if is_good.all() else tuple(np.argwhere(~is_good)[0])
        good = samples if bad is None else samples[: bad[0]]
        self._frames += len(good)
        self._frames_at_rate += len(good)
        yield self._resampler.push(self._mixer.push(good))
        if bad is not None:
            raise NonFiniteSamples(  # the API counts channels from 1
                f"audio: sample {self._frames} (channel {bad[1] + 1}) is {samples[bad]};"
                f" samples must be finite and within ±{MAX_ABS_SAMPLE:g}",
                field=AUDIO_FIELD,
            )
        if too_long:
            raise AudioTooLong(f"audio: longer than {self._limits.max_duration_s:g} s, the limit", field=AUDIO_FIELD)
