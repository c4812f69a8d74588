"""Files and live audio as bytes and samples, for the commands."""

from __future__ import annotations

import errno
import io
import select
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asr_service.audio import StreamDecoder
from asr_service.commands.option_types import STDIN
from asr_service.config import Settings
from asr_service.errors import InvalidAudio
from asr_service.streaming.audio_limits import stream_limits
from asr_service.types import AudioFormat

READ_BYTES = 64 * 1024
STOP_S = 0.1  # how often a stdin that is silent is left to see whether to stop


def file_bytes(path: Path, stop: threading.Event | None = None) -> Iterator[bytes]:
    """The bytes of a file or of STDIN, in pieces. Raises OSError; InvalidAudio for a file of 0 bytes.

    `stop` ends STDIN, also while nothing comes.
    """
    with _stdin() if path == STDIN else path.open("rb") as file:
        piece = _read(file, stop)
        if not piece:
            raise InvalidAudio("the file is empty (0 bytes)")
        while piece:
            yield piece
            piece = _read(file, stop)


def _stdin() -> io.FileIO:
    """Unbuffered: what is live is sent as it comes, and a thread that waits for it holds no lock of Python's."""
    if sys.stdin is None:  # so Python has it where the process was started without one
        raise OSError(errno.EBADF, "stdin is closed")
    return io.FileIO(sys.stdin.fileno(), closefd=False)


def _read(file: io.FileIO | io.BufferedReader, stop: threading.Event | None) -> bytes:
    if stop is not None and isinstance(file, io.FileIO):
        while not select.select([file], [], [], STOP_S)[0]:
            if stop.is_set():
                return b""
    return file.read(READ_BYTES) or b""


def file_chunks(
    path: Path, chunk_samples: int, settings: Settings, stop: threading.Event | None = None
) -> Iterator[bytes]:
    """A recording as raw float32 at 16 kHz, mono, in chunks of equal length (but the last); `stop` ends STDIN.

    The samples are those that the recogniser would make of the file itself, so the transcript is the same; and a chunk
    has a length in time, which bytes of compressed audio have not.

    Raises:
        OSError, InvalidAudio.
    """
    decoder = StreamDecoder(AudioFormat(), limits=stream_limits(settings.audio, settings.stream))
    pending = np.zeros(0, dtype=np.float32)

    def blocks() -> Iterator[np.ndarray]:
        for piece in file_bytes(path, stop):
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
