"""Whole files and whole byte strings: the stream decoder, driven in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_service.audio.limits import AudioLimits
from asr_service.audio.stream import StreamDecoder
from asr_service.errors import InvalidAudio
from asr_service.types import AudioFormat

READ_BYTES = 64 * 1024


def decode_bytes(
    data: bytes, fmt: AudioFormat, *, limits: AudioLimits, channel: int | None = None
) -> NDArray[np.float32]:
    """Decode all of `data` to 16 kHz mono float32, shape (n,): the same samples as a stream of the same bytes.

    Raises:
        InvalidField, InvalidAudio and its children, as `StreamDecoder`; AudioTooLong while decoding, not after.
    """
    view = memoryview(data)
    pieces = (bytes(view[start : start + READ_BYTES]) for start in range(0, len(view), READ_BYTES))
    return _decode(pieces, StreamDecoder(fmt, limits=limits, channel=channel))


def read_file(
    path: str | PathLike[str],
    *,
    limits: AudioLimits,
    fmt: AudioFormat | None = None,
    channel: int | None = None,
) -> NDArray[np.float32]:
    """Decode a file to 16 kHz mono float32, shape (n,); its header says what it is, unless `fmt` does.

    Raises:
        InvalidField, InvalidAudio and its children with the path in the message; OSError where it cannot be read.
    """
    decoder = StreamDecoder(fmt or AudioFormat(), limits=limits, channel=channel)
    try:
        return _decode(_pieces(Path(path)), decoder)
    except InvalidAudio as error:
        raise type(error)(f"{path}: {error.message}", field=error.field) from error


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            yield piece


def _decode(pieces: Iterable[bytes], decoder: StreamDecoder) -> NDArray[np.float32]:
    blocks = [block for piece in pieces for block in decoder.blocks(piece)]
    blocks.append(decoder.finish())
    return np.concatenate(blocks)
