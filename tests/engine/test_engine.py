"""Promises of the engine: any split equals the whole, batched equals alone, a used slot leaks nothing, one end each."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import numpy as np
import pytest

from asr_service.config import EngineSettings
from asr_service.engine.engine import BatchingEngine
from asr_service.engine.interface import (
    Failed,
    Final,
    Finished,
    Partial,
    Progress,
)
from asr_service.errors import EngineFailure, NoCapacity, ShuttingDown
from asr_service.model.bundle import Bundle, load_bundle
from asr_service.types import Mode
from tests.engine.conftest import make_tiny_bundle
from tests.engine.listening import babble, run, start, transcript
from tests.engine.stepped import Stepped


@pytest.fixture
def engine(tiny_bundle: Bundle):
    engine = BatchingEngine(tiny_bundle, EngineSettings(max_streams=6, precision="fp32"))
    engine.start()
    yield engine
    engine.stop()


@pytest.mark.parametrize("mode", list(Mode))
def test_any_split_of_the_audio_equals_the_whole(engine: BatchingEngine, mode: Mode) -> None:
    pcm = babble(9.3, 1)
    whole = transcript(run(engine, mode, pcm))
    assert len(whole) >= 3, "the audio has several utterances with words"
    for pieces in (2, 31, 465):
        assert transcript(run(engine, mode, pcm, pieces=pieces)) == whole


def test_a_transcript_does_not_depend_on_who_watched_it_grow(engine: BatchingEngine) -> None:
    """Stable words bind the final; so they are found whether or not interims are wanted."""
    for seed in range(4):
        pcm = babble(9.0, seed)
        quiet, watched = (run(engine, Mode.STREAMING, pcm, pieces=20, interim=interim) for interim in (False, True))
        assert transcript(quiet) == transcript(watched)


@pytest.mark.parametrize("mode", list(Mode))
def test_staggered_streams_in_one_batch_equal_each_alone(engine: BatchingEngine, mode: Mode) -> None:
    recordings = [babble(5.0 + seed, seed) for seed in range(5)]
    alone = [transcript(run(engine, mode, pcm)) for pcm in recordings]
    opened = [start(engine, mode) for _ in recordings]
    for step in range(0, max(map(len, recordings)), 3_000):
        for offset, ((handle, _), pcm) in enumerate(zip(opened, recordings, strict=True)):
            begin = step - offset * 1_000
            engine.audio(handle, pcm[max(0, begin) : max(0, begin + 3_000)])
    for offset, ((handle, _), pcm) in enumerate(zip(opened, recordings, strict=True)):
        sent = (max(map(len, recordings)) + 2_999) // 3_000 * 3_000 - offset * 1_000
        engine.audio(handle, pcm[max(0, sent) :])
        engine.finish(handle)
    for (_, listener), expected in zip(opened, alone, strict=True):
        assert listener.done.wait(60)
        assert transcript(listener) == expected


def test_a_used_slot_leaks_nothing(tiny_bundle: Bundle) -> None:
    pcm = babble(4.0, 3)
    engine = BatchingEngine(tiny_bundle, EngineSettings(max_streams=1, precision="fp32"))
    engine.start()
    try:
        fresh = transcript(run(engine, Mode.STREAMING, pcm))
        for tensor in engine._runner._cache._tensors():  # poison what the next stream must not see
            tensor.fill_(10_000)
        assert transcript(run(engine, Mode.STREAMING, pcm)) == fresh
    finally:
        engine.stop()


def test_partials_keep_their_stable_words_and_the_final_starts_with_them(engine: BatchingEngine) -> None:
    listener = run(engine, Mode.STREAMING, babble(9.0, 5), pieces=90, interim=True)
    stable: list[str] = []
    partials = 0
    for output in listener.outputs:
        if isinstance(output, Partial):
            words = [word.text for word in output.hypothesis.words]
            assert words[: len(stable)] == stable
            stable = words[: output.stable_words]
            partials += 1
        elif isinstance(output, Final):
            for alternative in output.alternatives:
                assert [word.text for word in alternative.words][: len(stable)] == stable
            stable = []
    assert partials > 5


@pytest.mark.parametrize("mode", list(Mode))
def test_finals_are_consecutive_and_times_never_go_back(engine: BatchingEngine, mode: Mode) -> None:
    listener = run(engine, mode, babble(12.0, 6), pieces=50)
    finals = listener.finals()
    assert [final.utterance_index for final in finals] == list(range(len(finals)))
    last_end = 0.0
    for final in finals:
        assert last_end <= final.start_s <= final.end_s
        last_end = final.end_s
        for hypothesis in final.alternatives:
            times = [time for word in hypothesis.words for time in (word.start_s, word.end_s)]
            assert times == sorted(times)
            assert final.start_s - 1e-6 <= times[0] and times[-1] <= final.end_s + 0.08
            assert all(0.0 <= word.confidence <= 1.0 for word in hypothesis.words)
    progress = [output.processed_s for output in listener.outputs if isinstance(output, Progress)]
    assert progress == sorted(progress)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("samples", [0, 1, 100, 511, 512, 10_239, 10_240, 10_241])
def test_short_and_silent_streams_end_without_results(engine: BatchingEngine, mode: Mode, samples: int) -> None:
    listener = run(engine, mode, np.zeros(samples, np.float32))
    assert isinstance(listener.outputs[-1], Finished)
    assert listener.finals() == []


def test_flush_ends_an_utterance_and_the_stream_goes_on(engine: BatchingEngine) -> None:
    pcm = babble(1.1, 8)
    handle, listener = start(engine, Mode.ACCURATE)
    for _ in range(2):
        engine.audio(handle, pcm)
        engine.flush(handle)
    engine.finish(handle)
    assert listener.done.wait(60)
    finals = listener.finals()
    assert len(finals) == 2 and finals[0].end_s == pytest.approx(1.04)


def test_capacity_is_bounded_and_cancel_frees_a_slot_at_once(engine: BatchingEngine) -> None:
    handles = [start(engine, Mode.STREAMING)[0] for _ in range(6)]
    with pytest.raises(NoCapacity):
        start(engine, Mode.STREAMING)
    engine.cancel(handles[0])
    engine.cancel(handles[0])
    for _ in range(200):
        if engine.active_streams == 5:
            break
        threading.Event().wait(0.01)
    assert engine.active_streams == 5
    start(engine, Mode.STREAMING)


def test_a_failure_stays_in_its_stream(engine: BatchingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sick, sick_listener = start(engine, Mode.STREAMING)
    well, well_listener = start(engine, Mode.STREAMING)

    def features(pcm: np.ndarray, carry: np.ndarray, *, last: bool) -> tuple:
        if len(pcm) == 4_321:
            raise RuntimeError("cosmic ray")
        return original(pcm, carry, last=last)

    original = engine._runner.features
    monkeypatch.setattr(engine._runner, "features", features)
    engine.audio(sick, np.zeros(4_321, np.float32))
    engine.audio(well, babble(3.0, 2))
    engine.finish(well)
    assert sick_listener.done.wait(60) and well_listener.done.wait(60)
    failure = sick_listener.outputs[-1]
    assert isinstance(failure, Failed) and isinstance(failure.error, EngineFailure)
    assert isinstance(well_listener.outputs[-1], Finished) and well_listener.finals()
    assert engine.healthy


def test_a_stream_whose_search_cannot_be_made_fails_alone_and_frees_its_slot(
    engine: BatchingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError("no such tree")

    with monkeypatch.context() as patched:
        patched.setattr(engine._space, "searches", lambda _: refuse)
        sick, sick_listener = start(engine, Mode.STREAMING)
        assert sick_listener.done.wait(60)
    failure = sick_listener.outputs[-1]
    assert isinstance(failure, Failed) and isinstance(failure.error, EngineFailure)
    engine.audio(sick, babble(0.5, 1))  # late: of a stream that has ended
    well, well_listener = start(engine, Mode.STREAMING)
    engine.audio(well, babble(3.0, 2))
    engine.finish(well)
    assert well_listener.done.wait(60)
    assert isinstance(well_listener.outputs[-1], Finished) and well_listener.finals()
    assert engine.active_streams == 0 and engine.healthy


def test_stop_ends_open_streams_and_refuses_new_ones(tiny_bundle: Bundle) -> None:
    engine = BatchingEngine(tiny_bundle, EngineSettings(max_streams=2, precision="fp32"))
    engine.start()
    _, listener = start(engine, Mode.STREAMING)
    engine.stop()
    last = listener.outputs[-1]
    assert isinstance(last, Failed) and isinstance(last.error, ShuttingDown)
    assert not engine.healthy
    with pytest.raises(ShuttingDown):
        start(engine, Mode.STREAMING)


def test_stop_ends_streams_whose_opening_the_thread_has_not_seen(tiny_bundle: Bundle) -> None:
    engine = Stepped(tiny_bundle, EngineSettings(max_streams=2, precision="fp32"))
    _, listener = start(engine, Mode.STREAMING)
    gone, gone_listener = start(engine, Mode.ACCURATE)
    engine.cancel(gone)
    engine.stop()
    engine._run()
    last = listener.outputs[-1]
    assert isinstance(last, Failed) and isinstance(last.error, ShuttingDown)
    assert not gone_listener.outputs
    assert engine.active_streams == 0


def test_no_stream_opens_between_the_look_whether_the_engine_stops_and_the_message_to_its_thread(
    tiny_bundle: Bundle,
) -> None:
    engine = Stepped(tiny_bundle, EngineSettings(max_streams=2, precision="fp32"))
    held: list[tuple[str, bool]] = []

    class Stopping(threading.Event):
        def is_set(self) -> bool:
            held.append(("look", engine._opening.locked()))
            return super().is_set()

        def set(self) -> None:
            held.append(("stop", engine._opening.locked()))
            super().set()

    class Inbox(queue.SimpleQueue):
        def put(self, *message: object) -> None:
            held.append(("message", engine._opening.locked()))
            super().put(*message)

    engine._stopping, engine._inbox = Stopping(), Inbox()
    start(engine, Mode.STREAMING)
    assert held == [("look", True), ("message", True)]
    held.clear()
    engine.stop()
    assert held[0] == ("stop", True)


def test_a_model_without_phones_decodes_with_its_word_pieces(tmp_path: Path) -> None:
    engine = BatchingEngine(
        load_bundle(make_tiny_bundle(tmp_path, phones=False)), EngineSettings(max_streams=2, precision="fp32")
    )
    engine.start()
    try:
        assert transcript(run(engine, Mode.ACCURATE, babble(3.0, 4)))
    finally:
        engine.stop()
