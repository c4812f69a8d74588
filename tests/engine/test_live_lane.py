"""Promises of the lane of live streams: which interims leave it, and that finals keep to their budget."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from asr_service.config import EngineSettings
from asr_service.decoding import prefix_scores
from asr_service.engine.interface import Final, Finished, FrameEvidence, Partial, Progress, StreamOptions
from asr_service.engine.live import ChunkedDecoder
from asr_service.engine.stream import Stream
from asr_service.model.bundle import Bundle
from asr_service.parts import Parts
from asr_service.streaming.endpointer import Endpointer
from asr_service.streaming.updates import UpdateBuilder
from asr_service.types import EndpointingConfig, Hypothesis, Mode, RecognitionConfig, RecognitionResult, Word
from tests.engine.listening import RATE, Listener, babble, start, transcript
from tests.engine.stepped import SETTINGS, Stepped, WorkCounter, spend_a_second_a_look, upload


def speech_without_pauses(seconds: float, seed: int) -> np.ndarray:
    """Cut for its length, at one of the places where it is half as loud for a moment."""
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(int(seconds * RATE)).astype(np.float32) * 0.1
    samples[: int(0.4 * RATE)] *= 0.01
    times = np.arange(len(samples)) / RATE
    for dip in rng.uniform(0.5, seconds, int(seconds * 2)):
        samples[(times > dip) & (times < dip + 0.08)] *= 0.5
    return samples


def test_a_word_of_the_look_ahead_is_shown_and_taken_back_though_no_chunk_had_words(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([0, 1, 0, 0])

    def partial(self: ChunkedDecoder, *, offset_s: float) -> tuple[Hypothesis, int]:
        ahead = Word("one", offset_s + 0.5, offset_s + 7.0, 0.0)
        return Hypothesis((ahead,) * next(told, 0)), 0

    monkeypatch.setattr(ChunkedDecoder, "partial", partial)
    monkeypatch.setattr(ChunkedDecoder, "has_words", False)
    engine = Stepped(tiny_bundle, EngineSettings(max_streams=2, precision="fp32"))
    handle, listener = start(engine, Mode.STREAMING, interim=True)
    engine.audio(handle, speech_without_pauses(5.0, 1))
    engine.settle()
    partials = [output for output in listener.outputs if isinstance(output, Partial)]
    assert [len(output.hypothesis.words) for output in partials] == [1, 0]
    assert next(told, None) is None


def test_what_was_shown_of_an_utterance_that_had_no_words_is_taken_back(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def partial(self: ChunkedDecoder, *, offset_s: float) -> tuple[Hypothesis, int]:
        return Hypothesis((Word("one", offset_s, offset_s + 0.1, 0.0),)), 0

    def final_parts(self: ChunkedDecoder, *, offset_s: float) -> Parts[tuple[Hypothesis, ...]]:
        yield
        return ()

    monkeypatch.setattr(ChunkedDecoder, "partial", partial)
    monkeypatch.setattr(ChunkedDecoder, "final_parts", final_parts)
    engine = Stepped(tiny_bundle, EngineSettings(max_streams=2, precision="fp32"))
    handle, listener = start(engine, Mode.STREAMING, interim=True)
    engine.audio(handle, babble(6.0, 1))
    engine.finish(handle)
    engine.settle()
    assert not listener.finals()
    shown = [len(output.hypothesis.words) for output in listener.outputs if isinstance(output, Partial)]
    assert shown.count(0) >= 2 and shown[-1] == 0
    assert (0, 0) not in itertools.pairwise(shown)


@pytest.mark.parametrize("seed", [1, 2])
def test_finals_lie_at_the_same_times_though_interims_showed_words_beyond_the_cut(
    tiny_bundle: Bundle, seed: int
) -> None:
    """An utterance that is cut for its length may end in what its last chunk looked ahead at."""
    pcm = speech_without_pauses(13.0, seed)
    heard: list[list[RecognitionResult]] = []
    for interim in (False, True):
        engine = Stepped(tiny_bundle, EngineSettings(max_streams=1, precision="fp32"))
        handle, listener = start(engine, Mode.STREAMING, interim=interim)
        engine.audio(handle, pcm)
        engine.finish(handle)
        engine.settle()
        builder, results = UpdateBuilder(RecognitionConfig()), []
        for output in listener.outputs:
            if isinstance(output, Partial):
                builder.interim(output, len(pcm) / RATE)
            elif isinstance(output, Final):
                results += builder.final(output, len(pcm) / RATE).results
        heard.append(results)
    assert heard[0] == heard[1]
    assert len(heard[0]) >= 3


def test_finals_beyond_the_budget_wait_for_a_later_turn_but_each_comes(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Stepped(tiny_bundle, dataclasses.replace(SETTINGS, final_budget_s=0.001))
    spend_a_second_a_look(monkeypatch, "live_lane")
    listeners = [upload(engine, babble(0.5, seed), Mode.STREAMING) for seed in range(4)]
    ended = [0]
    while engine.turn():
        ended.append(sum(bool(listener.done.is_set()) for listener in listeners))
        assert ended[-1] - ended[-2] in (0, 1)
    assert ended[-1] == 4


def test_a_final_takes_as_many_turns_as_its_budget_wants_and_live_chunks_go_on_between_them(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every hypothesis that is read from the trace is a part, too: with few the decoder's turn comes soon.
    bundle = dataclasses.replace(tiny_bundle, decoding={**tiny_bundle.decoding, "streaming_n_best": 4})
    engine = Stepped(bundle, dataclasses.replace(SETTINGS, final_budget_s=0.001))
    spend_a_second_a_look(monkeypatch, "live_lane")
    monkeypatch.setattr(prefix_scores, "PART_NODES", 16)
    done = WorkCounter(engine, monkeypatch)
    listener = upload(engine, babble(2.0, 3), Mode.STREAMING)
    handle, other = start(engine, Mode.STREAMING, interim=True)
    pcm, before, shown = speech_without_pauses(14.0, 9), 0, []
    for begin in range(0, len(pcm), 5_120):
        engine.audio(handle, pcm[begin : begin + 5_120])
        engine.turn()
        assert done.stretches - before <= 1
        if done.stretches and not listener.done.is_set():
            shown.append(sum(isinstance(output, Partial) for output in other.outputs))
        before = done.stretches
    assert max(shown) > min(shown), "partials of the other stream while the final is under way"
    engine.finish(handle)
    engine.settle()
    for heard, samples in ((listener, babble(2.0, 3)), (other, pcm)):
        alone = Stepped(bundle, SETTINGS)
        expected = upload(alone, samples, Mode.STREAMING)
        alone.settle()
        assert transcript(heard) == transcript(expected) != []
    assert not engine._live._finals


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
        engine.turn()
        return seen

    assert events(0.001) == ["search"] * 4 + ["partial"] * 4
    assert events(1.0) == ["search", "partial"] * 4


def test_the_stream_is_not_observed_while_its_final_is_due(engine: Stepped) -> None:
    stream: Stream
    start(engine, Mode.STREAMING)
    engine.turn()
    (stream,) = engine._streams
    stream.final_since = 0
    assert stream.work() is None


class Watched(Endpointer):
    """Keeps what it was told."""

    def __init__(self) -> None:
        super().__init__(EndpointingConfig(min_trailing_silence_s=0.5, max_utterance_s=6.0))
        self.told: list[FrameEvidence] = []

    def observe(self, evidence: FrameEvidence) -> bool:
        self.told.append(evidence)
        return super().observe(evidence)


def watched(engine: Stepped, pcm: np.ndarray) -> tuple[Listener, list[FrameEvidence]]:
    """A live stream with interims: what came of it, and what its endpointer was told."""
    listener, policy = Listener(), Watched()
    handle = engine.open(StreamOptions(Mode.STREAMING, interim_results=True), policy, listener)
    for part in np.array_split(pcm, 30):
        engine.audio(handle, part)
        engine.settle()
    engine.finish(handle)
    engine.settle()
    return listener, policy.told


def test_words_that_a_model_hears_in_silence_reach_neither_the_client_nor_the_endpointer(
    engine: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    imagined = Hypothesis((Word("one", 0.1, 0.2, 0.9),))

    def final_parts(self: ChunkedDecoder, *, offset_s: float) -> Parts[tuple[Hypothesis, ...]]:
        yield
        return (imagined,)

    monkeypatch.setattr(ChunkedDecoder, "has_words", True)
    monkeypatch.setattr(ChunkedDecoder, "partial", lambda self, *, offset_s: (imagined, 0))
    monkeypatch.setattr(ChunkedDecoder, "final_parts", final_parts)
    listener, told = watched(engine, np.zeros(3 * RATE, np.float32))
    assert told and not any(evidence.has_words for evidence in told)
    assert {type(output) for output in listener.outputs} == {Progress, Finished}
    listener, told = watched(engine, babble(3.0, 1))
    assert any(evidence.has_words for evidence in told)
    assert {Partial, Final} <= {type(output) for output in listener.outputs}


def test_every_utterance_and_its_words_lie_in_stream_time(engine: Stepped) -> None:
    listener, told = watched(engine, babble(9.0, 5))
    finals = listener.finals()
    starts = [final.start_s for final in finals]
    assert len(finals) >= 3 and starts == sorted(set(starts))
    for output in listener.outputs:
        if isinstance(output, Partial) and output.utterance_index < len(finals):
            final = finals[output.utterance_index]
            assert output.start_s == final.start_s < output.end_s <= final.end_s
    ends = [(each.utterance_start_s, each.last_word_end_s) for each in told if each.last_word_end_s is not None]
    assert len({start for start, _ in ends}) >= 3
    assert all(start < end for start, end in ends)


@pytest.mark.parametrize("mode", list(Mode))
def test_each_lane_has_a_budget_of_its_own(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, mode: Mode) -> None:
    budgets = {Mode.STREAMING: "final_budget_s", Mode.ACCURATE: "accurate_budget_s"}
    settings = dataclasses.replace(SETTINGS, final_budget_s=0.001, accurate_budget_s=0.001)
    engine = Stepped(tiny_bundle, dataclasses.replace(settings, **{budgets[mode]: 60.0}))
    ticks = itertools.count()
    monkeypatch.setattr("asr_service.engine.live_lane.time.perf_counter", lambda: next(ticks) / 100)
    listeners = [upload(engine, babble(0.5, seed), mode) for seed in range(2)]
    engine.turn()
    assert all(listener.done.is_set() for listener in listeners)
