"""A failure of the model ends the stream that it happens to, and no other."""

from __future__ import annotations

import math
import queue
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from asr_service.config import EngineSettings
from asr_service.decoding.prefix_scores import PrefixScores
from asr_service.engine.engine import UNHEALTHY_AFTER, BatchingEngine
from asr_service.engine.interface import Failed, Finished, FrameEvidence, StreamOptions
from asr_service.errors import EngineFailure, LimitReached
from asr_service.model.bundle import Bundle
from asr_service.streaming.endpointer import Endpointer
from asr_service.types import EndpointingConfig, Mode
from tests.engine.listening import Listener, babble, start, transcript
from tests.engine.stepped import SETTINGS, Stepped, upload


def test_of_a_batch_that_fails_only_the_culprit_ends(engine: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    original = engine._runner.utterance_parts

    def encode(utterances: list) -> list:
        if any(len(features) < 100 for features in utterances):
            raise RuntimeError("cosmic ray")
        return original(utterances)

    monkeypatch.setattr(engine._runner, "utterance_parts", encode)
    well = [upload(engine, babble(4.0, seed)) for seed in range(2)]
    sick = upload(engine, babble(0.9, 7))  # shorter than any utterance of the others
    engine.settle()
    assert all(isinstance(listener.outputs[-1], Finished) and listener.finals() for listener in well)
    failure = sick.outputs[-1]
    assert isinstance(failure, Failed) and isinstance(failure.error, EngineFailure)
    assert engine.active_streams == 0
    assert engine._streams.failures < UNHEALTHY_AFTER


def test_of_a_batch_of_chunks_that_fails_only_the_culprit_ends_and_the_others_lose_nothing(
    engine: Stepped, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = [babble(4.0, seed) for seed in range(3)]
    opened = [start(engine, Mode.STREAMING) for _ in recordings]
    sick_slot = opened[1][0].slot
    original = engine._runner.encode_chunks
    calls: list[int] = []

    def encode(slots: list, chunks: list, kept: list) -> list:
        calls.append(len(slots))
        if sick_slot in slots and len(calls) > 2:
            raise RuntimeError("cosmic ray")
        return original(slots, chunks, kept)

    monkeypatch.setattr(engine._runner, "encode_chunks", encode)
    for (handle, _), pcm in zip(opened, recordings, strict=True):
        engine.audio(handle, pcm)
        engine.finish(handle)
    engine.settle()
    assert isinstance(opened[1][1].outputs[-1], Failed)
    for place in (0, 2):
        alone = Stepped(tiny_bundle, SETTINGS)
        expected = upload(alone, recordings[place], Mode.STREAMING)
        alone.settle()
        assert transcript(opened[place][1]) == transcript(expected) != []
    assert engine._streams.failures == 0


@pytest.mark.parametrize("mode", list(Mode))
def test_two_batches_in_a_row_in_which_all_fail_make_the_engine_unhealthy(
    engine: Stepped, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("the model is gone")

    monkeypatch.setattr(engine._runner, "encode_chunks", fail)
    monkeypatch.setattr(engine._runner, "utterance_parts", fail)
    for count in (1, 2):
        listeners = [upload(engine, babble(2.0, seed), mode) for seed in range(3)]
        engine.settle()
        assert all(isinstance(listener.outputs[-1], Failed) for listener in listeners)
        assert engine._streams.failures >= count
    assert engine._streams.failures >= UNHEALTHY_AFTER
    assert engine.active_streams == 0


@pytest.mark.parametrize("mode", list(Mode))
def test_a_final_that_fails_in_the_middle_ends_its_stream_alone(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    engine = Stepped(tiny_bundle, SETTINGS)
    original, calls = PrefixScores.totals, []

    def totals(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("cosmic ray")
        return original(*arguments)

    monkeypatch.setattr(PrefixScores, "totals", totals)
    sick, well = (upload(engine, babble(2.0, seed), mode) for seed in range(2))
    engine.settle()
    assert isinstance(sick.outputs[-1], Failed) and isinstance(well.outputs[-1], Finished) and well.finals()
    assert engine.active_streams == 0 and not engine._live._finals


@pytest.mark.timeout(60)
def test_an_engine_that_is_stuck_in_one_turn_is_not_healthy_and_its_end_is_not_waited_for(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = BatchingEngine(tiny_bundle, EngineSettings(max_streams=2, precision="fp32", max_turn_s=1.0))
    stuck, go_on = threading.Event(), threading.Event()
    original = engine._runner.features

    def hang(*arguments: Any, **options: Any) -> Any:
        stuck.set()
        go_on.wait()
        return original(*arguments, **options)

    monkeypatch.setattr(engine._runner, "features", hang)
    engine.start()
    time.sleep(1.5)
    assert engine.healthy  # an idle engine has no turn to be stuck in
    handle, listener = start(engine, Mode.STREAMING)
    engine.audio(handle, babble(1.0, 1))
    assert stuck.wait(10) and engine.healthy
    deadline = time.monotonic() + 20
    while engine.healthy and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not engine.healthy
    engine.stop()
    assert not listener.done.is_set()
    go_on.set()
    assert listener.done.wait(10)


@pytest.mark.parametrize("mode", list(Mode))
def test_the_engine_is_healthy_until_a_second_batch_in_a_row_has_failed(
    engine: Stepped, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("the model is gone")

    def healthy_after(seed: int) -> bool:
        upload(engine, babble(1.0, seed), mode)
        engine.settle()
        return engine.healthy

    monkeypatch.setattr(engine._thread, "is_alive", lambda: True)
    with monkeypatch.context() as patched:
        patched.setattr(engine._runner, "encode_chunks", fail)
        patched.setattr(engine._runner, "utterance_parts", fail)
        assert [healthy_after(seed) for seed in range(2)] == [True, False]
    assert healthy_after(2)


def test_a_culprit_in_batch_after_batch_leaves_the_engine_healthy(
    engine: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = engine._runner.encode_chunks
    sick: list[int] = []

    def encode(slots: list, chunks: list, kept: list) -> list:
        if set(sick) & set(slots):
            raise RuntimeError("cosmic ray")
        return original(slots, chunks, kept)

    monkeypatch.setattr(engine._runner, "encode_chunks", encode)
    for seed in range(UNHEALTHY_AFTER):
        opened = [start(engine, Mode.STREAMING) for _ in range(2)]
        sick[:] = [opened[0][0].slot]
        for handle, _ in opened:
            engine.audio(handle, babble(1.0, seed))
        engine.turn()
        assert isinstance(opened[0][1].outputs[-1], Failed)
        assert engine._streams.failures == 0


@pytest.mark.parametrize("asked", ["audio", "flush", "finish"])
def test_audio_that_the_front_end_fails_on_ends_its_stream_alone_and_is_told_why(
    engine: Stepped, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    original, refused = engine._runner.features, LimitReached("not so loud")

    def features(pcm: np.ndarray, *arguments: Any, **options: Any) -> Any:
        if len(pcm) == 4_321:
            raise refused
        return original(pcm, *arguments, **options)

    monkeypatch.setattr(engine._runner, "features", features)
    handle, listener = start(engine, Mode.STREAMING)
    engine.audio(handle, np.zeros(4_321, np.float32))
    if asked != "audio":
        getattr(engine, asked)(handle)
    well = upload(engine, babble(2.0, 2), Mode.STREAMING)
    engine.settle()
    assert listener.outputs == [Failed(refused)]
    assert isinstance(well.outputs[-1], Finished) and well.finals()


def test_a_message_that_the_engine_waited_for_is_part_of_a_turn_that_may_be_stuck(engine: Stepped) -> None:
    class Waited(queue.SimpleQueue):
        def get_nowait(self) -> object:
            raise queue.Empty

    began: list[float] = []

    def handle(message: object) -> None:
        began.append(engine._turn_began)
        engine._stopping.set()

    engine._inbox = Waited()
    engine._handle = handle  # type: ignore[method-assign]
    start(engine, Mode.STREAMING)
    engine._run()
    assert began and all(map(math.isfinite, began))


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("ticks", [3, 60])
def test_an_endpointer_that_fails_ends_its_stream_alone(
    engine: Stepped, tiny_bundle: Bundle, mode: Mode, ticks: int
) -> None:
    class Broken(Endpointer):
        observed = 0

        def observe(self, evidence: FrameEvidence) -> bool:
            self.observed += 1
            if self.observed == ticks:
                raise RuntimeError("cosmic ray")
            return super().observe(evidence)

    well, sick = upload(engine, babble(6.0, 1), mode), Listener()
    config = EndpointingConfig(min_trailing_silence_s=0.5, max_utterance_s=6.0)
    handle = engine.open(StreamOptions(mode=mode), Broken(config), sick)
    engine.audio(handle, babble(6.0, 2))
    engine.settle()
    assert isinstance(sick.outputs[-1], Failed) and isinstance(sick.outputs[-1].error, EngineFailure)
    alone = Stepped(tiny_bundle, SETTINGS)
    expected = upload(alone, babble(6.0, 1), mode)
    alone.settle()
    assert transcript(well) == transcript(expected) != []
    assert engine.active_streams == 0
