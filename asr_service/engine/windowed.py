"""The policy *windowed*, for encoders that know full context only: a growing window is encoded and decoded again at
each step, and words on which two steps agree are committed (LocalAgreement-2, Macháček et al. 2023, whisper_streaming).

A window ends with its utterance. When it grows too long it is cut between two committed words; some of them stay before
what is still open, for an encoder that begins in the middle of speech hears its first word badly. The final is searched
as an accurate utterance is, over what is left of the window, after the committed words.

Dimensions: T feature frames (10 ms), F mel bins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from asr_service.config import EngineSettings
from asr_service.decoding.hypothesis import TimedWord
from asr_service.decoding.local_agreement import LocalAgreement
from asr_service.engine.frames import FRAME_S
from asr_service.engine.interface import StreamOptions
from asr_service.engine.live import LiveDecoder
from asr_service.engine.runner import Encoded, ModelRunner, parts_of
from asr_service.engine.scheduler import batches
from asr_service.engine.search import NEW_WORD_S, PART_FRAMES, UtteranceSearch
from asr_service.engine.search_space import SearchSpace
from asr_service.parts import Parts, at_once
from asr_service.types import Hypothesis, Mode, Word

# So much of what is committed stays in a window that is cut.
CONTEXT_S = 2.0


class WindowedDecoder:
    """One stream. Frames count from the beginning of its utterance."""

    def __init__(self, steps: UtteranceSearch, finals: UtteranceSearch, *, n_mels: int, window_s: float, lag_s: float):
        """`steps` and `finals` search a window while somebody speaks and at the end."""
        self._steps, self._finals = steps, finals
        self._n_mels = n_mels
        self._longest, self._lag = round(window_s / FRAME_S), round(lag_s / FRAME_S)
        self._agreement = LocalAgreement()
        self.reset()

    def reset(self) -> None:
        self._steps.reset()
        self._finals.reset()
        self._agreement.reset()
        self._window = np.zeros((0, self._n_mels), dtype=np.float32)
        self._start = 0  # of the window
        self._ends = False
        self._encoded: Encoded | None = None  # the last window of the utterance
        self._confidences: list[float] = []  # of the committed words that were cut off

    @property
    def has_words(self) -> bool:
        return bool(self._agreement.words)

    def take(self, features: NDArray[np.float32], *, ends_utterance: bool, waiting: int) -> NDArray[np.float32] | None:
        self._window = np.concatenate([self._window, features])
        self._ends = ends_utterance
        is_behind = bool(self._lag) and waiting > self._lag and not ends_utterance
        return None if is_behind or not len(self._window) else self._window

    def step(self, encoded: Encoded) -> bool:
        if self._ends:
            self._encoded = encoded  # for `final_parts`, which makes a search of its own
            return False
        before = len(self._agreement.words)
        self._steps.reset()
        self._steps.step(encoded)
        self._agreement.update(self._frames(self._steps.best(offset_s=0.0).words))
        words, end = self._agreement.words, self._start + len(self._window)
        if len(self._window) > self._longest:
            self._cut(encoded)
        return len(words) > before and (end - words[-1].end_frame) * FRAME_S <= NEW_WORD_S

    def partial(self, *, offset_s: float) -> tuple[Hypothesis, int]:
        words = self._agreement.words
        return Hypothesis(_placed(words, [0.0] * len(words), offset_s)), len(self._agreement.committed)

    def last_word_end_s(self, *, offset_s: float) -> float | None:
        words = self._agreement.words
        return offset_s + words[-1].end_frame * FRAME_S if words else None

    def final_parts(self, *, offset_s: float) -> Parts[tuple[Hypothesis, ...]]:
        committed, found = self._agreement.committed, (yield from self._search(self._encoded))
        different: dict[tuple[str, ...], Hypothesis] = {}
        for alternative in found or [Hypothesis(())]:
            heard = self._frames(alternative.words)
            words = committed + self._agreement.beyond(heard)
            if words:
                sure = self._sure(words, heard, alternative)
                placed = _placed(words, sure, offset_s)
                hypothesis = Hypothesis(placed, alternative.score, float(np.mean(sure)))
                different.setdefault(tuple(word.text for word in words), hypothesis)
        return tuple(different.values())

    def _cut(self, encoded: Encoded) -> None:
        """Let committed words leave the window, all but the last `CONTEXT_S`."""
        committed = self._agreement.committed
        cut_off = len(self._confidences)
        for count in range(len(committed) - 1, cut_off, -1):
            if committed[count].start_frame <= committed[-1].end_frame - CONTEXT_S / FRAME_S:
                break
        else:
            return
        found = at_once(self._search(encoded))
        best = found[0] if found else Hypothesis(())
        self._confidences = self._sure(committed[:count], self._frames(best.words), best)
        place = (committed[count - 1].end_frame + committed[count].start_frame) // 2
        self._window = self._window[place - self._start :].copy()
        self._start = place
        self._agreement.forget(count)

    def _search(self, encoded: Encoded | None) -> Parts[tuple[Hypothesis, ...]]:
        """A window as an accurate utterance; times count from its beginning."""
        self._finals.reset()
        if encoded is None:
            return ()
        for part in parts_of(encoded, PART_FRAMES):
            self._finals.step(part)
            yield
        return (yield from self._finals.final_parts(offset_s=0.0))

    def _sure(self, words: Sequence[TimedWord], heard: Sequence[TimedWord], heard_as: Hypothesis) -> list[float]:
        """Confidences of the words: that of the same word at the same time in what was heard, else 0."""
        sure = self._confidences[: len(words)]
        for word in words[len(sure) :]:
            same = (
                spoken.confidence
                for at, spoken in zip(heard, heard_as.words, strict=True)
                if at.text == word.text and at.start_frame <= word.end_frame and word.start_frame <= at.end_frame
            )
            sure.append(max(same, default=0.0))
        return sure

    def _frames(self, words: Sequence[Word]) -> tuple[TimedWord, ...]:
        """Words in seconds of the window, in frames of the utterance."""
        return tuple(
            TimedWord(word.text, self._start + round(word.start_s / FRAME_S), self._start + round(word.end_s / FRAME_S))
            for word in words
        )


def _placed(words: Sequence[TimedWord], confidences: Sequence[float], offset_s: float) -> tuple[Word, ...]:
    return tuple(
        Word(word.text, offset_s + word.start_frame * FRAME_S, offset_s + word.end_frame * FRAME_S, sure)
        for word, sure in zip(words, confidences, strict=True)
    )


class WindowedPolicy:
    """Windows of similar lengths are encoded together, with full context."""

    lookahead_features = 0
    search_modes: tuple[Mode, ...] = (Mode.STREAMING, Mode.ACCURATE)

    def __init__(self, runner: ModelRunner, space: SearchSpace, settings: EngineSettings) -> None:
        self._runner, self._space, self._settings = runner, space, settings
        self.step_features = runner.chunk_features

    def decoders(self, options: StreamOptions) -> Callable[[int], LiveDecoder]:
        steps = self._space.searches(options)
        finals = self._space.searches(dataclasses.replace(options, mode=Mode.ACCURATE))

        def begin(slot: int) -> LiveDecoder:  # noqa: ARG001
            return WindowedDecoder(
                steps(),
                finals(),
                n_mels=self._runner.bundle.model.config.n_mels,
                window_s=self._settings.window_s,
                lag_s=self._settings.window_lag_s,
            )

        return begin

    def encode(
        self,
        slots: Sequence[int],
        inputs: Sequence[NDArray[np.float32]],
        kept: Sequence[int],  # noqa: ARG002
    ) -> list[Encoded]:
        encoded: dict[int, Encoded] = {}
        most = self._settings.accurate_batch_s / FRAME_S
        for batch in batches([len(window) for window in inputs], most=most):
            outputs = self._runner.encode_utterances([inputs[index] for index in batch])
            encoded |= dict(zip(batch, outputs, strict=True))
        return [encoded[index] for index in range(len(slots))]
