"""Promises of the accurate lane: batched equals alone, in order, bounded, and never at the cost of live streams."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import weakref

import numpy as np
import pytest
import torch

from asr_service.decoding import prefix_scores
from asr_service.engine.interface import Finished, Partial, Progress
from asr_service.engine.runner import ModelRunner, parts_of
from asr_service.engine.search import PART_FRAMES
from asr_service.model.bundle import Bundle
from asr_service.types import Mode
from tests.engine.listening import babble, start, transcript
from tests.engine.stepped import SETTINGS, Stepped, WorkCounter, run_alone, spend_a_second_a_look, upload


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
    while engine.turn():
        waiting = engine._accurate._queue._waiting.values()
        most = max(most, *(sum(u.frames for u in utterances) for utterances in waiting), 0)
        told = [output.processed_s for output in listener.outputs if isinstance(output, Progress)]
        done = [final.end_s for final in listener.finals()]
        # An utterance of these lasts 1.7 to 2.3 s: the queue, the one that fills it up, and the one observed ahead.
        assert told[-1] - max(done, default=0.0) <= 3.0 + 2 * 6.0
    assert 300 <= most <= 300 + 600
    assert transcript(listener) == transcript(run_alone(tiny_bundle, babble(25.0, 3)))


def test_a_turn_does_one_part_of_accurate_work_when_the_budget_is_spent_and_all_live_chunks(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever waits in the accurate lane, each turn first serves the live stream."""
    engine = Stepped(tiny_bundle, dataclasses.replace(SETTINGS, accurate_budget_s=0.001))
    spend_a_second_a_look(monkeypatch, "accurate_lane")
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
        engine.turn()
        assert len(steps) - before == 1
    partials = [output for output in live.outputs if isinstance(output, Partial)]
    assert len(partials) >= 3 and not any(isinstance(output, Finished) for output in live.outputs)
    assert len(engine._accurate._queue), "files still wait"


def test_live_chunks_wait_for_one_block_of_an_accurate_batch_or_one_part_of_a_ranking_at_most(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the utterance, and however many are encoded together."""
    engine = Stepped(tiny_bundle, dataclasses.replace(SETTINGS, accurate_budget_s=0.001))
    spend_a_second_a_look(monkeypatch, "accurate_lane")
    monkeypatch.setattr(prefix_scores, "PART_NODES", 16)
    done = WorkCounter(engine, monkeypatch)
    start(engine, Mode.STREAMING)
    listener = upload(engine, babble(5.0, 4))
    most_blocks = most_stretches = turns = 0
    before = (0, 0)
    while engine.turn():
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
    spend_a_second_a_look(monkeypatch, "accurate_lane")
    handle, listener = start(engine, Mode.ACCURATE)
    engine.audio(handle, babble(4.0, 2))
    engine.finish(handle)
    for _ in range(3):
        engine.turn()
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
    spend_a_second_a_look(monkeypatch, "accurate_lane", "live_lane")
    gc.collect()
    gc.disable()
    try:
        for turns in (1, 4, 7, 10):
            handle, _ = start(engine, mode)
            engine.audio(handle, babble(1.8, 3))
            engine.finish(handle)
            for _ in range(turns):
                engine.turn()
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


def test_a_cancelled_file_leaves_nothing_behind(engine: Stepped) -> None:
    handle, listener = start(engine, Mode.ACCURATE)
    engine.audio(handle, babble(20.0, 2))
    engine.turn()
    engine.cancel(handle)
    engine.settle()
    assert engine.active_streams == 0 and not len(engine._accurate._queue)
    assert not engine._accurate._searches and not listener.done.is_set()


def test_an_utterance_that_waits_keeps_its_own_features_alone_and_none_once_it_is_encoded(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Stepped(tiny_bundle, dataclasses.replace(SETTINGS, accurate_budget_s=0.001))
    spend_a_second_a_look(monkeypatch, "accurate_lane")
    upload(engine, babble(8.0, 3))
    waited = encoded = 0
    while engine.turn():
        for utterance in itertools.chain(*engine._accurate._queue._waiting.values()):
            if utterance.parts is not None:
                assert utterance.features is None
                encoded += 1
            elif utterance.features is not None:
                assert utterance.features.base is None
                waited += 1
    assert waited and encoded
