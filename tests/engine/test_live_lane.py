"""Which interims leave the lane of live streams."""

from __future__ import annotations

import pytest

from asr_service.config import EngineSettings
from asr_service.engine.interface import Partial
from asr_service.engine.live import ChunkedDecoder
from asr_service.model.bundle import Bundle
from asr_service.types import Hypothesis, Mode, Word
from tests.engine.stepped import Stepped
from tests.engine.test_engine import babble, start


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
    assert partials[0].end_s == pytest.approx(7.0), "the word lies within the result"
