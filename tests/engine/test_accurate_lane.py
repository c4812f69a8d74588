"""Promises of the accurate lane: batched equals alone, in order, bounded, and never at the cost of live streams."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from asr_service.config import EngineSettings
from asr_service.decoding import attention_scores
from asr_service.decoding.attention_scores import AttentionScores
from asr_service.engine.engine import UNHEALTHY_AFTER
from asr_service.engine.interface import Failed, Finished, Partial, Progress
from asr_service.engine.runner import ModelRunner, parts_of
from asr_service.engine.search import PART_FRAMES
from asr_service.engine.stream import Stream
from asr_service.errors import EngineFailure
from asr_service.model.bundle import Bundle
from asr_service.types import Hypothesis, Mode
from tests.engine.stepped import Stepped
from tests.engine.test_engine import Listener, babble, start, transcript

# In single precision a batch gives each row what it would get alone; in bf16 rounding may tip the scales between words.
SETTINGS = EngineSettings(max_streams=6, precision="fp32")


@pytest.fixture
def engine(tiny_bundle: Bundle) -> Stepped:
    return Stepped(tiny_bundle, SETTINGS)


def upload(engine: Stepped, pcm: np.ndarray, mode: Mode = Mode.ACCURATE) -> Listener:
    """All of a file at once."""
    handle, listener = start(engine, mode)
    engine.audio(handle, pcm)
    engine.finish(handle)
    return listener


def test_padded_utterances_encode_as_each_alone(tiny_bundle: Bundle) -> None:
    runner = ModelRunner(tiny_bundle, streams=1, threads=1, precision="fp32")
    generator = torch.Generator().manual_seed(5)
    utterances = [torch.randn(frames, 80, generator=generator).numpy() for frames in (1, 8, 203, 512, 77, 509)]
    for together, features in zip(runner.encode_utterances(utterances), utterances, strict=True):
        alone = runner.encode_whole(features)
        for name in ("phones", "pieces", "hidden"):
            expected, got = np.asarray(getattr(alone, name)), np.asarray(getattr(together, name))
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected, atol=1e-4)


def test_parts_are_the_whole(tiny_bundle: Bundle) -> None:
    runner = ModelRunner(tiny_bundle, streams=1, threads=1, precision="fp32")
    for frames in (1, 7, 8, 63, 64, 65, 508):
        whole = runner.encode_whole(np.random.default_rng(1).standard_normal((frames, 80)).astype(np.float32))
        parts = list(parts_of(whole, PART_FRAMES))
        assert all(len(part.pieces) == PART_FRAMES for part in parts[:-1])
        for name in ("phones", "pieces", "hidden"):
            joined = np.concatenate([np.asarray(getattr(part, name)) for part in parts])
            np.testing.assert_array_equal(joined, np.asarray(getattr(whole, name)))


def test_utterances_of_one_file_are_encoded_together_and_give_the_words_of_each_alone(
    engine: Stepped, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = engine._runner.utterance_parts

    def counted(utterances: list) -> list:
        sizes.append(len(utterances))
        return original(utterances)

    monkeypatch.setattr(engine._runner, "utterance_parts", counted)
    together = [upload(engine, babble(11.0 + seed, seed)) for seed in range(2)]
    engine.settle()
    assert max(sizes) >= 4, "utterances of both files in one batch"
    alone = Stepped(tiny_bundle, dataclasses.replace(SETTINGS, accurate_batch_s=1.0))
    for seed, listener in enumerate(together):
        expected = upload(alone, babble(11.0 + seed, seed))
        alone.settle()
        assert transcript(listener) == transcript(expected)
        assert len(transcript(listener)) >= 4
        assert isinstance(listener.outputs[-1], Finished)


def test_a_long_upload_holds_no_more_than_its_queue_and_goes_on_as_it_is_answered(tiny_bundle: Bundle) -> None:
    settings = dataclasses.replace(SETTINGS, accurate_queue_s=3.0, accurate_budget_s=0.001)
    engine = Stepped(tiny_bundle, settings)
    listener = upload(engine, babble(25.0, 3))
    most = 0
    while engine._turn():
        waiting = engine._accurate._queue._waiting.values()
        most = max(most, *(sum(u.frames for u in utterances) for utterances in waiting), 0)
        told = [output.processed_s for output in listener.outputs if isinstance(output, Progress)]
        done = [final.end_s for final in listener.finals()]
        # An utterance of these lasts 1.7 to 2.3 s: the queue, the one that fills it up, and the one observed ahead.
        assert told[-1] - max(done, default=0.0) <= 3.0 + 2 * 6.0
    assert 300 <= most <= 300 + 600
    assert transcript(listener) == transcript(run_alone(tiny_bundle, babble(25.0, 3)))


def run_alone(bundle: Bundle, pcm: np.ndarray) -> Listener:
    engine = Stepped(bundle, SETTINGS)
    listener = upload(engine, pcm)
    engine.settle()
    return listener


def test_a_turn_does_one_part_of_accurate_work_when_the_budget_is_spent_and_all_live_chunks(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever waits in the accurate lane, each turn first serves the live stream."""
    engine = Stepped(tiny_bundle, dataclasses.replace(SETTINGS, accurate_budget_s=0.001))
    ticks = iter(range(1_000_000))
    monkeypatch.setattr("asr_service.engine.accurate_lane.time.perf_counter", lambda: float(next(ticks)))
    steps: list[str] = []
    original = engine._accurate._part
    monkeypatch.setattr(engine._accurate, "_part", lambda: (steps.append("part"), original())[1])
    for seed in range(3):
        upload(engine, babble(10.0, seed))
    handle, live = start(engine, Mode.STREAMING, interim=True)
    pcm = babble(6.0, 9)
    for begin in range(0, len(pcm), 10_240):
        engine.audio(handle, pcm[begin : begin + 10_240])
        before = len(steps)
        engine._turn()
        assert len(steps) - before == 1
    partials = [output for output in live.outputs if isinstance(output, Partial)]
    assert len(partials) >= 3 and not any(isinstance(output, Finished) for output in live.outputs)
    assert len(engine._accurate._queue), "files still wait"


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


def test_live_chunks_wait_for_one_block_of_an_accurate_batch_or_one_part_of_a_ranking_at_most(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the utterance, and however many are encoded together."""
    engine = Stepped(tiny_bundle, dataclasses.replace(SETTINGS, accurate_budget_s=0.001))
    ticks = iter(range(1_000_000))
    monkeypatch.setattr("asr_service.engine.accurate_lane.time.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(attention_scores, "PART_NODES", 16)
    done = WorkCounter(engine, monkeypatch)
    start(engine, Mode.STREAMING)
    listener = upload(engine, babble(5.0, 4))
    most_blocks = most_stretches = turns = 0
    before = (0, 0)
    while engine._turn():
        blocks, stretches = done.blocks - before[0], done.stretches - before[1]
        assert blocks + stretches <= 1
        most_blocks, most_stretches = max(most_blocks, blocks), max(most_stretches, stretches)
        before, turns = (done.blocks, done.stretches), turns + 1
    assert (most_blocks, most_stretches) == (1, 1) and turns > done.blocks + done.stretches
    layers = len(engine._runner.bundle.model.encoder.blocks)
    assert done.blocks < layers * len(listener.finals()), "several utterances in one batch"
    assert transcript(listener) == transcript(run_alone(tiny_bundle, babble(5.0, 4)))


def test_a_file_that_is_cancelled_while_it_is_encoded_leaves_nothing_behind(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Stepped(tiny_bundle, dataclasses.replace(SETTINGS, accurate_budget_s=0.001))
    ticks = iter(range(1_000_000))
    monkeypatch.setattr("asr_service.engine.accurate_lane.time.perf_counter", lambda: float(next(ticks)))
    handle, listener = start(engine, Mode.ACCURATE)
    engine.audio(handle, babble(4.0, 2))
    engine.finish(handle)
    for _ in range(3):
        engine._turn()
    assert engine._accurate._encoding is not None
    engine.cancel(handle)
    engine.settle()
    assert engine._accurate._encoding is None and engine.active_streams == 0 and not listener.finals()


@pytest.mark.parametrize("mode", list(Mode))
def test_a_stream_that_is_cancelled_at_any_part_of_its_work_leaves_nothing_in_memory_or_slot(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """At once, not when the collector of cycles comes by: that may be long after the next thousand streams."""
    settings = dataclasses.replace(SETTINGS, max_streams=1, accurate_budget_s=0.001, final_budget_s=0.001)
    engine, fresh = Stepped(tiny_bundle, settings), Stepped(tiny_bundle, settings)
    ticks = itertools.count()
    for lane in ("accurate_lane", "live_lane"):
        monkeypatch.setattr(f"asr_service.engine.{lane}.time.perf_counter", lambda: float(next(ticks)))
    gc.collect()
    gc.disable()
    try:
        for turns in (1, 4, 7, 10):
            handle, _ = start(engine, mode)
            engine.audio(handle, babble(1.8, 3))
            engine.finish(handle)
            for _ in range(turns):
                engine._turn()
            stream = engine._streams.get(handle)
            assert stream is not None, "it is under way"
            watched = weakref.ref(stream)
            del stream
            engine.cancel(handle)
            engine.settle()
            assert watched() is None
    finally:
        gc.enable()
    after, expected = (upload(each, babble(1.8, 4), mode) for each in (engine, fresh))
    for each in (engine, fresh):
        each.settle()
    assert transcript(after) == transcript(expected) != []


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


def test_finals_beyond_the_budget_wait_for_a_later_turn_but_each_comes(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Stepped(tiny_bundle, dataclasses.replace(SETTINGS, final_budget_s=0.001))
    ticks = iter(range(1_000_000))
    monkeypatch.setattr("asr_service.engine.live_lane.time.perf_counter", lambda: float(next(ticks)))
    listeners = [upload(engine, babble(0.5, seed), Mode.STREAMING) for seed in range(4)]
    ended = [0]
    while engine._turn():
        ended.append(sum(bool(listener.done.is_set()) for listener in listeners))
        assert ended[-1] - ended[-2] in (0, 1)
    assert ended[-1] == 4


def test_a_final_takes_as_many_turns_as_its_budget_wants_and_live_chunks_go_on_between_them(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Stepped(tiny_bundle, dataclasses.replace(SETTINGS, final_budget_s=0.001))
    ticks = iter(range(1_000_000))
    monkeypatch.setattr("asr_service.engine.live_lane.time.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(attention_scores, "PART_NODES", 16)
    done = WorkCounter(engine, monkeypatch)
    listener = upload(engine, babble(2.0, 3), Mode.STREAMING)
    handle, other = start(engine, Mode.STREAMING, interim=True)
    pcm, before, shown = babble(6.0, 9), 0, []
    for begin in range(0, len(pcm), 5_120):
        engine.audio(handle, pcm[begin : begin + 5_120])
        engine._turn()
        assert done.stretches - before <= 1
        if done.stretches and not listener.done.is_set():
            shown.append(sum(isinstance(output, Partial) for output in other.outputs))
        before = done.stretches
    assert max(shown) > min(shown), "partials of the other stream while the final is under way"
    engine.finish(handle)
    engine.settle()
    for heard, seconds, seed in ((listener, 2.0, 3), (other, 6.0, 9)):
        alone = Stepped(tiny_bundle, SETTINGS)
        expected = upload(alone, babble(seconds, seed), Mode.STREAMING)
        alone.settle()
        assert transcript(heard) == transcript(expected) != []
    assert not engine._live._finals


@pytest.mark.parametrize("mode", list(Mode))
def test_a_final_that_fails_in_the_middle_ends_its_stream_alone(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    engine = Stepped(tiny_bundle, SETTINGS)
    original, calls = AttentionScores.totals, []

    def totals(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("cosmic ray")
        return original(*arguments)

    monkeypatch.setattr(AttentionScores, "totals", totals)
    sick, well = (upload(engine, babble(2.0, seed), mode) for seed in range(2))
    engine.settle()
    assert isinstance(sick.outputs[-1], Failed) and isinstance(well.outputs[-1], Finished) and well.finals()
    assert engine.active_streams == 0 and not engine._live._finals


def test_outputs_of_one_turn_go_out_together_but_none_waits_long_for_the_others(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an event loop is woken once a turn, not once a stream."""

    def events(seconds_a_search: float) -> list[str]:
        now, seen = [0.0], []
        monkeypatch.setattr("asr_service.engine.open_streams.time.perf_counter", lambda: now[0])
        engine = Stepped(tiny_bundle, SETTINGS)
        original = engine._live._search

        def search(*arguments: Any) -> None:
            seen.append("search")
            original(*arguments)
            arguments[0].sink = lambda output: seen.append("partial") if isinstance(output, Partial) else None
            engine._streams.put(arguments[0], Partial(Hypothesis(()), 0, 0, 0.0, 0.0))
            now[0] += seconds_a_search

        engine._live._search = search  # type: ignore[method-assign]
        for seed in range(4):
            handle, _ = start(engine, Mode.STREAMING)
            engine.audio(handle, babble(1.0, seed))
        engine._turn()
        return seen

    assert events(0.001) == ["search"] * 4 + ["partial"] * 4
    assert events(1.0) == ["search", "partial"] * 4


def test_a_cancelled_file_leaves_nothing_behind(engine: Stepped) -> None:
    handle, listener = start(engine, Mode.ACCURATE)
    engine.audio(handle, babble(20.0, 2))
    engine._turn()
    engine.cancel(handle)
    engine.settle()
    assert engine.active_streams == 0 and not len(engine._accurate._queue)
    assert not engine._accurate._searches and not listener.done.is_set()


def test_the_stream_is_not_observed_while_its_final_is_due(engine: Stepped) -> None:
    stream: Stream
    start(engine, Mode.STREAMING)
    engine._turn()
    (stream,) = engine._streams
    stream.final_since = 0
    assert stream.work() is None
