"""Files and live audio as bytes and samples, for the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asr_service.audio import StreamDecoder
from asr_service.config import Settings
from asr_service.errors import InvalidAudio
from asr_service.streaming.audio_limits import stream_limits
from asr_service.types import AudioFormat

READ_BYTES = 64 * 1024


def file_bytes(path: Path) -> Iterator[bytes]:
    """The bytes of a file, in pieces. Raises OSError; InvalidAudio for a file of 0 bytes."""
    with path.open("rb") as file:
        piece = file.read(READ_BYTES)
        if not piece:
            raise InvalidAudio("the file is empty (0 bytes)")
        while piece:
            yield piece
            piece = file.read(READ_BYTES)


def file_chunks(path: Path, chunk_samples: int, settings: Settings) -> Iterator[bytes]:
    """A file as raw float32 at 16 kHz, mono, in chunks of equal length (the last may be shorter).

    The samples are those that the recogniser would make of the file itself, so the transcript is the same; and a chunk
    has a length in time, which bytes of compressed audio have not.

    Raises:
        OSError, InvalidAudio.
    """
    decoder = StreamDecoder(AudioFormat(), limits=stream_limits(settings.audio, settings.stream))
    pending = np.zeros(0, dtype=np.float32)

    def blocks() -> Iterator[np.ndarray]:
        for piece in file_bytes(path):
            yield from decoder.blocks(piece)
        yield from decoder.rest()

    failure: InvalidAudio | OSError | None = None
    try:
        for block in blocks():
            pending = np.concatenate([pending, block])
            whole = len(pending) // chunk_samples * chunk_samples
            for start in range(0, whole, chunk_samples):
                yield pending[start : start + chunk_samples].astype("<f4").tobytes()
            pending = pending[whole:]
    except (InvalidAudio, OSError) as error:  # what came before the damage is sent first
        failure = error
    if len(pending):
        yield pending.astype("<f4").tobytes()
    if failure is not None:
        raise failure
