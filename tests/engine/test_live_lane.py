"""Which interims leave the lane of live streams."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from asr_service.config import EngineSettings
from asr_service.engine.interface import Final, Partial
from asr_service.engine.live import ChunkedDecoder
from asr_service.model.bundle import Bundle
from asr_service.parts import Parts
from asr_service.streaming.updates import UpdateBuilder
from asr_service.types import Hypothesis, Mode, RecognitionConfig, RecognitionResult, Word
from tests.engine.stepped import Stepped
from tests.engine.test_engine import RATE, babble, start


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
    engine.audio(handle, babble(6.0, 1))
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


def speech_without_pauses(seconds: float, seed: int) -> np.ndarray:
    """Cut for its length, at one of the places where it is half as loud for a moment."""
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(int(seconds * RATE)).astype(np.float32) * 0.1
    samples[: int(0.4 * RATE)] *= 0.01
    times = np.arange(len(samples)) / RATE
    for dip in rng.uniform(0.5, seconds, int(seconds * 2)):
        samples[(times > dip) & (times < dip + 0.08)] *= 0.5
    return samples


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
