"""What a live stream shows of a growing hypothesis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from asr_service.decoding.hypothesis import TimedWord
from asr_service.engine.live import ChunkedDecoder
from asr_service.engine.runner import Encoded
from asr_service.engine.search import UtteranceSearch

NOTHING = Encoded(np.zeros((10, 40), dtype=np.float32), np.zeros((5, 8), dtype=np.float32), torch.zeros(5, 4))


class Scripted(UtteranceSearch):
    """Finds one word more with each step of ten frames; the first `shared` are those of all its hypotheses."""

    def __init__(self, *, shared: int, hold_back_s: float, look_ahead: int = 0) -> None:
        super().__init__(frame_s=0.04, limit=1, confidence_scale=0.3, agreement=0, hold_back_s=hold_back_s)
        self._count, self._alike, self._look_ahead = 0, shared, look_ahead

    def _advance(self, encoded: Encoded) -> tuple[int, Sequence[TimedWord]]:
        self._count += 1
        return 10 * self._count, [TimedWord(f"w{i}", 10 * i, 10 * i + 9) for i in range(self._count)]

    def _ahead(self) -> tuple[int, Sequence[TimedWord]]:
        frames = 10 * self._count + self._look_ahead
        return frames, [TimedWord(f"w{i}", 10 * i, 10 * i + 9) for i in range(frames // 10)]

    def _shared(self) -> int:
        return self._alike

    def _ranked(self) -> list[tuple[Sequence[TimedWord], float]]:
        return []


def shown(shared: int, hold_back_s: float, look_ahead: int = 0) -> tuple[int, int]:
    search = Scripted(shared=shared, hold_back_s=hold_back_s, look_ahead=look_ahead)
    for _ in range(6):
        search.step(NOTHING)
    hypothesis, stable = search.partial(offset_s=0.0)
    return len(hypothesis.words), stable


class Late(Scripted):
    """Its words end `frames` before what was encoded does; after the second step there are no more."""

    def __init__(self, frames: int) -> None:
        super().__init__(shared=0, hold_back_s=0.0)
        self._late = frames

    def _advance(self, encoded: Encoded) -> tuple[int, Sequence[TimedWord]]:
        frames, words = super()._advance(encoded)
        return frames, [TimedWord(word.text, word.start_frame, frames - self._late) for word in words[:2]]


def test_a_word_is_new_once_and_where_it_ended_just_now() -> None:
    assert [Late(frames).step(NOTHING) for frames in (0, 4, 5)] == [True, True, False]
    search = Late(4)
    assert [search.step(NOTHING) for _ in range(3)] == [True, True, False]


def test_words_that_have_just_ended_are_held_back() -> None:
    assert shown(0, 0.0) == (6, 0)
    assert shown(0, 0.04) == (6, 0)  # the last ended one frame ago
    assert shown(0, 0.08) == (5, 0)
    assert shown(0, 1.0) == (3, 0)
    assert shown(0, 10.0) == (0, 0)


def test_words_in_the_look_ahead_are_shown_and_are_not_stable() -> None:
    assert shown(0, 0.0, look_ahead=20) == (8, 0)
    assert shown(2, 0.8, look_ahead=20) == (6, 2)  # held back from the end of the look-ahead


def test_the_endpointer_is_told_of_words_that_are_held_back() -> None:
    search = Scripted(shared=0, hold_back_s=1.0)
    decoder = ChunkedDecoder(search)
    assert decoder.last_word_end_s(offset_s=2.0) is None
    for _ in range(6):
        decoder.step(NOTHING)
    assert len(decoder.partial(offset_s=2.0)[0].words) == 3
    assert len(search.best(offset_s=2.0).words) == 6
    assert decoder.last_word_end_s(offset_s=2.0) == pytest.approx(2.0 + 59 * 0.04)


def test_stable_words_are_shown_however_young_they_are() -> None:
    assert shown(5, 1.0) == (5, 5)
    assert shown(6, 10.0) == (6, 6)


def test_nothing_of_an_utterance_is_left_in_the_next() -> None:
    search = Scripted(shared=2, hold_back_s=0.0)
    for _ in range(3):
        search.step(NOTHING)
    assert search.has_words and search.best(offset_s=0.0).words
    search.reset()
    assert not search.has_words and not search.best(offset_s=0.0).words
    assert ChunkedDecoder(search).last_word_end_s(offset_s=0.0) is None
    assert search._stabiliser.stable == () and search.final(offset_s=0.0) == ()
