"""Streams with a listener, and audio in which a bundle with random weights finds utterances."""

from __future__ import annotations

import threading

import numpy as np

from asr_service.engine.engine import BatchingEngine
from asr_service.engine.interface import Failed, Final, Finished, StreamOptions, StreamOutput
from asr_service.streaming.endpointer import Endpointer
from asr_service.types import EndpointingConfig, Mode

RATE = 16_000


def babble(seconds: float, seed: int) -> np.ndarray:
    """A pause, then noise bursts with pauses: enough for the endpointer to find utterances."""
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(int(seconds * RATE)).astype(np.float32) * 0.1
    spans = (np.arange(len(samples)) / RATE + 1.9) % 2.3
    return np.where(spans < 1.2, samples, samples * 0.01).astype(np.float32)


class Listener:
    """Collects a stream's outputs; `done` is set by the terminal one."""

    def __init__(self) -> None:
        self.outputs: list[StreamOutput] = []
        self.done = threading.Event()

    def __call__(self, output: StreamOutput) -> None:
        assert not self.done.is_set(), "an output after the terminal one"
        self.outputs.append(output)
        if isinstance(output, Finished | Failed):
            self.done.set()

    def finals(self) -> list[Final]:
        return [output for output in self.outputs if isinstance(output, Final)]


def start(engine: BatchingEngine, mode: Mode, *, interim: bool = False) -> tuple:
    listener = Listener()
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.5, max_utterance_s=6.0))
    options = StreamOptions(mode=mode, max_alternatives=3, interim_results=interim)
    return engine.open(options, policy, listener), listener


def run(engine: BatchingEngine, mode: Mode, pcm: np.ndarray, *, pieces: int = 1, interim: bool = False) -> Listener:
    handle, listener = start(engine, mode, interim=interim)
    for part in np.array_split(pcm, pieces):
        engine.audio(handle, part)
    engine.finish(handle)
    assert listener.done.wait(60)
    return listener


def transcript(listener: Listener) -> list[tuple]:
    """Utterances with the words of their best alternative; random weights make exact ties among the others."""
    return [
        (final.utterance_index, final.end_s, [(word.text, word.start_s, word.end_s) for word in best.words])
        for final in listener.finals()
        for best in final.alternatives[:1]
    ]
