"""An engine whose turns a test takes one by one, and what it is watched with."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from asr_service.config import EngineSettings
from asr_service.engine.engine import BatchingEngine
from asr_service.model.bundle import Bundle
from asr_service.types import Mode
from tests.engine.listening import Listener, start

# In single precision a batch gives each row what it would get alone; in bf16 rounding may tip the scales between words.
SETTINGS = EngineSettings(max_streams=6, precision="fp32")


class Stepped(BatchingEngine):
    """Without its thread: one turn when it is told so."""

    def start(self) -> None:
        pass

    def settle(self) -> None:
        while self.turn():
            pass


def spend_a_second_a_look(monkeypatch: pytest.MonkeyPatch, *lanes: str) -> None:
    """Each look of these lanes at the clock is a second later than the last: a budget is spent after one part."""
    ticks = itertools.count()
    for lane in lanes:
        monkeypatch.setattr(f"asr_service.engine.{lane}.time.perf_counter", lambda: float(next(ticks)))


def upload(engine: Stepped, pcm: np.ndarray, mode: Mode = Mode.ACCURATE) -> Listener:
    """All of a file at once."""
    handle, listener = start(engine, mode)
    engine.audio(handle, pcm)
    engine.finish(handle)
    return listener


def run_alone(bundle: Bundle, pcm: np.ndarray) -> Listener:
    engine = Stepped(bundle, SETTINGS)
    listener = upload(engine, pcm)
    engine.settle()
    return listener


class WorkCounter:
    """What the model has done: blocks of the encoder for whole utterances, and stretches of the decoder's tree."""

    def __init__(self, engine: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blocks = self.stretches = 0
        model = engine._runner.bundle.model
        for block in model.encoder.blocks:
            monkeypatch.setattr(block, "forward", self._counted(block.forward, "blocks"))
        monkeypatch.setattr(model.decoder, "grow_tree", self._counted(model.decoder.grow_tree, "stretches"))

    def _counted(self, function: Any, name: str) -> Any:
        def counted(*arguments: Any) -> Any:
            setattr(self, name, getattr(self, name) + 1)
            return function(*arguments)

        return counted
