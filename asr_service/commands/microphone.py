"""Audio from the sound card, by the optional package `sounddevice`."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

from asr_service.errors import Unavailable, Unsupported
from asr_service.types import SAMPLE_RATE_HZ

MAX_WAITING_CHUNKS = 250  # 10 s of 40 ms


def microphone_chunks(chunk_samples: int, stop: threading.Event) -> Iterator[bytes]:
    """LINEAR16 at 16 kHz, mono, until `stop` is set.

    Raises:
        Unsupported: the package, its PortAudio library, or a microphone is missing.
        Unavailable: nobody has taken a chunk for `MAX_WAITING_CHUNKS`; after all that were recorded until then.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise Unsupported(
            f"--mic needs the package sounddevice and PortAudio ({error}): pip install sounddevice"
        ) from error
    chunks: queue.Queue[bytes] = queue.Queue(MAX_WAITING_CHUNKS)
    lost = threading.Event()

    def on_audio(data: Any, frames: int, when: Any, status: Any) -> None:  # noqa: ARG001
        if stop.is_set():
            return
        try:
            chunks.put_nowait(bytes(data))
        except queue.Full:
            lost.set()
            stop.set()  # the network has stood still; a gap in the audio would be worse than an end

    with contextlib.ExitStack() as open_streams:
        try:
            stream = sounddevice.RawInputStream(
                samplerate=SAMPLE_RATE_HZ, blocksize=chunk_samples, channels=1, dtype="int16", callback=on_audio
            )
            open_streams.enter_context(stream)
        except sounddevice.PortAudioError as error:
            raise Unsupported(f"--mic: no microphone can be opened: {error}") from error
        while not (stop.is_set() and chunks.empty()):
            try:
                yield chunks.get(timeout=0.1)
            except queue.Empty:
                continue
    if lost.is_set():
        seconds = MAX_WAITING_CHUNKS * chunk_samples / SAMPLE_RATE_HZ
        raise Unavailable(f"--mic: no audio could be sent for {seconds:g} s: the recording ends there")
