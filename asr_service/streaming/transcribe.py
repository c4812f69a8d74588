"""Recognition without a server: blocks until all of a recording has been answered."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from asr_service.audio import StreamDecoder
from asr_service.config import Settings
from asr_service.engine.interface import Engine
from asr_service.errors import EngineFailure, InvalidAudio, InvalidField
from asr_service.streaming.audio_limits import stream_limits
from asr_service.streaming.session import Session
from asr_service.streaming.updates import StreamUpdate
from asr_service.types import RecognitionConfig, RecognitionResult

# An engine that stops tells its streams; this is how often one looks whether it is gone without a word.
WAKE_CHECK_S = 5.0


def transcribe_pcm(
    engine: Engine, pcm: NDArray[np.float32], config: RecognitionConfig, *, settings: Settings | None = None
) -> list[RecognitionResult]:
    """Recognise 16 kHz mono samples, shape (n,), with a running engine; return the finals.

    Raises:
        NoCapacity, ShuttingDown, EngineFailure; StreamTooLong beyond `stream.max_stream_s`.
    """
    run = _BlockingRun(engine, config, None, settings or Settings())
    return _finals(run.updates(run.session.blocks(pcm)))


def transcribe_bytes(
    engine: Engine, chunks: Iterable[bytes], config: RecognitionConfig, *, settings: Settings | None = None
) -> list[RecognitionResult]:
    """Recognise bytes of any encoding, in any pieces; return the finals.

    Raises InvalidAudio, InvalidField besides the above; `stream_bytes` tells what was said before the damage.
    """
    return _finals(stream_bytes(engine, chunks, config, settings=settings))


def stream_bytes(
    engine: Engine, chunks: Iterable[bytes], config: RecognitionConfig, *, settings: Settings | None = None
) -> Iterator[StreamUpdate]:
    """As `transcribe_bytes`, but yields each update as it comes; those of what came before an error, too.

    The stream is opened when the first is asked for.
    """
    settings = settings or Settings()
    limits = stream_limits(settings.audio, settings.stream)
    decoder = StreamDecoder(config.audio, limits=limits, channel=config.channel)
    run = _BlockingRun(engine, config, decoder, settings)

    def blocks() -> Iterator[NDArray[np.float32]]:
        for chunk in chunks:
            yield from run.session.decode(chunk)
        yield from run.session.decode_rest()

    yield from run.updates(blocks())


class _BlockingRun:
    """A session whose owner sleeps until the engine wakes it."""

    def __init__(
        self, engine: Engine, config: RecognitionConfig, decoder: StreamDecoder | None, settings: Settings
    ) -> None:
        self._engine = engine
        self._woken = threading.Event()
        self.session = Session(
            engine,
            config,
            decoder=decoder,
            wake=self._woken.set,
            settings=settings.stream,
            endpointing=settings.endpointing,
        )

    def updates(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[StreamUpdate]:
        session = self.session
        try:
            yield from self._feed(blocks)
            while session.end is None:
                self._wait()
                yield from self._ready()
            yield from self._ready()
            if session.error is not None:
                raise session.error
        finally:
            session.close()

    def _feed(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[StreamUpdate]:
        session = self.session
        try:
            for block in blocks:
                yield from self._ready()
                while not session.has_room:
                    self._wait()
                    yield from self._ready()
                if not session.takes_audio:
                    break
                session.feed(block)
            session.finish()
        except (InvalidAudio, InvalidField) as error:  # what was said before the damage is told first
            session.finish(error)

    def _wait(self) -> None:
        if not self._woken.wait(WAKE_CHECK_S) and not self._engine.healthy:
            raise EngineFailure("the engine has stopped without an answer")

    def _ready(self) -> Iterator[StreamUpdate]:
        self._woken.clear()
        self.session.collect()
        while (update := self.session.take()) is not None:
            yield update


def _finals(updates: Iterable[StreamUpdate]) -> list[RecognitionResult]:
    return [result for update in updates for result in update.results if result.is_final]
