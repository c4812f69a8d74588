"""Live streams on an engine in this process: no sockets, no clock, so processor time is the engine's alone.

Every stream gets the next stretch of its audio, then all of it is answered, then the next: one batch a turn. That is
the engine at its fullest; under a live load chunks come one by one and batches are as large as the engine is late.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_service.config import Settings
from asr_service.engine.engine import BatchingEngine
from asr_service.engine.interface import Failed, Final, Finished, Progress, StreamOptions, StreamOutput
from asr_service.evaluation.references import read_references
from asr_service.evaluation.waveform import read_waveform
from asr_service.streaming.endpointer import Endpointer
from asr_service.types import EndpointingConfig, Mode

SAMPLE_RATE_HZ = 16_000
# Audio that the front end may keep: a window's rest and less than one 80 ms frame.
KEPT_S = 0.2
PATIENCE_S = 600.0
TYPICAL_CLIP_S = 5.0


def recordings(manifest: Path, streams: int, seconds: float) -> list[NDArray[np.float32]]:
    """One for each stream, of this length: a manifest's clips one after the other, few clips twice."""
    settings, whole = Settings(), round(seconds * SAMPLE_RATE_HZ)
    references = read_references([manifest])
    wanted = round(streams * (1 + seconds / TYPICAL_CLIP_S))
    clips = itertools.cycle(references[:: max(1, len(references) // wanted)])
    rows = []
    for _ in range(streams):
        row = np.zeros(0, dtype=np.float32)
        while len(row) < whole:
            row = np.concatenate([row, read_waveform(next(clips), settings)])
        rows.append(row[:whole])
    return rows


class _Listener:
    """The sink of one stream."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.processed_s = 0.0
        self.ended = False
        self.news = threading.Event()

    def __call__(self, output: StreamOutput) -> None:
        if isinstance(output, Progress):
            self.processed_s = output.processed_s
        elif isinstance(output, Final):
            self.words += [word.text for word in output.alternatives[0].words]
        elif isinstance(output, Finished):
            self.ended = True
        elif isinstance(output, Failed):
            raise output.error
        self.news.set()

    def wait(self, until_s: float) -> None:
        while not self.ended and self.processed_s < until_s:
            if not self.news.wait(PATIENCE_S):
                raise TimeoutError("the engine does not answer")
            self.news.clear()


def play(engine: BatchingEngine, audio: Sequence[NDArray[np.float32]], block_s: float) -> list[str]:
    """All of these at once, in blocks of `block_s`; returns their transcripts."""
    options = StreamOptions(Mode.STREAMING, interim_results=True)
    listeners = [_Listener() for _ in audio]
    handles = [engine.open(options, Endpointer(EndpointingConfig()), listener) for listener in listeners]
    block = round(block_s * SAMPLE_RATE_HZ)
    for start in range(0, max(map(len, audio)), block):
        for handle, samples in zip(handles, audio, strict=True):
            engine.audio(handle, samples[start : start + block])
        for listener in listeners:
            listener.wait(start / SAMPLE_RATE_HZ + block_s - KEPT_S if start + block <= len(audio[0]) else 0.0)
    for handle in handles:
        engine.finish(handle)
    for listener in listeners:
        listener.wait(float("inf"))
    return [" ".join(listener.words) for listener in listeners]


def settings_for(latency: str, streams: int) -> Settings:
    settings = Settings()
    return dataclasses.replace(
        settings, engine=dataclasses.replace(settings.engine, latency=latency, max_streams=streams)
    )
