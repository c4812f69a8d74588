"""One packet in, samples out: FFmpeg's decoders through PyAV, without its demuxers.

The demuxers pull from a file and may look ahead or seek; packets cut by our own parsers make the output depend on the
bytes alone, hold no thread, and never block.
"""

from __future__ import annotations

from collections.abc import Mapping

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from numpy.typing import NDArray

from asr_service.audio.source import invalid


class PacketDecoder:
    """A decoder for one elementary stream.

    Args:
        container: its name in messages.
        codec: FFmpeg's name of the decoder.
        extradata: the codec's set-up bytes.
        options: FFmpeg's decoder options.
    """

    def __init__(
        self, container: str, codec: str, extradata: bytes = b"", options: Mapping[str, str] | None = None
    ) -> None:
        self._container = container
        context = av.CodecContext.create(codec, "r")
        assert isinstance(context, AudioCodecContext)
        context.thread_count = 1
        if extradata:
            context.extradata = extradata
        context.options = dict(options or {})
        try:
            context.open()
        except (av.error.FFmpegError, ValueError) as error:
            raise invalid(container, f"its header cannot be used: {error}") from error
        self._context = context

    def decode(self, packet: bytes) -> list[NDArray[np.generic]]:
        """Return the samples of one packet, each of shape (n, C), in the decoder's own type.

        Raises:
            InvalidAudio: the packet is damaged.
        """
        try:
            frames = self._context.decode(av.Packet(packet))
        except (av.error.FFmpegError, ValueError) as error:
            raise invalid(self._container, "a damaged packet cannot be decoded") from error
        return [_interleaved(frame) for frame in frames]


def to_float(samples: NDArray[np.generic]) -> NDArray[np.float32]:
    """Full scale to 1.0; integers of 16 or 32 bits use all of their range (FFmpeg shifts narrower ones up)."""
    floats = samples.astype(np.float32)
    if samples.dtype.kind == "i":
        floats *= np.float32(2.0 ** (1 - 8 * samples.dtype.itemsize))
    return floats


def _interleaved(frame: av.AudioFrame) -> NDArray[np.generic]:
    """The samples, of shape (n, C)."""
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        return frame.to_ndarray().reshape(-1, channels)
    # Not to_ndarray: PyAV 18 counts nine planes where there are eight, and the ninth lies in nobody's memory.
    assert frame.format.name == "fltp"
    return np.stack(
        [np.frombuffer(memoryview(plane), np.float32, frame.samples) for plane in frame.planes[:channels]], axis=1
    )
