"""The search of one utterance: encoded stretches in, ranked hypotheses in stream time out.

Dimensions: T4 and T8 encoder frames (40 and 80 ms), N phones, V word pieces, D model.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asr_service.decoding.confidence import posteriors, word_confidences
from asr_service.decoding.hypothesis import TimedWord
from asr_service.decoding.stabiliser import Stabiliser
from asr_service.decoding.word_features import WordConfidence
from asr_service.engine.runner import Encoded
from asr_service.types import Hypothesis, Word

# A word that ended this close to the end of what was encoded is news to the endpointer.
NEW_TOKEN_S = 0.16


class UtteranceSearch(ABC):
    """One utterance at a time: any number of `step`s, `partial`s in between, `final`, `reset`."""

    frame_s: float

    def __init__(
        self,
        *,
        limit: int,
        confidence_scale: float,
        agreement: int | None,
        hold_back_s: float = 0.0,
        word_confidence: WordConfidence | None = None,
    ) -> None:
        """`limit`: alternatives at most. `confidence_scale` flattens the n-best list's posteriors, which are the words'
        confidences where there is no `word_confidence`. `agreement`: updates that a word must stand unchanged to be
        stable (see `Stabiliser`), None where nothing is shown before the final. `hold_back_s`: how long ago a word
        must have ended to be shown before it is stable.
        """
        self._limit = limit
        self._confidence_scale = confidence_scale
        self._word_confidence = word_confidence
        self._live = agreement is not None
        self._hold_back = round(hold_back_s / self.frame_s)
        self._stabiliser = Stabiliser(agreement or 0)
        self._encoded: list[Encoded] = []
        self._frames = 0
        self._best: Sequence[TimedWord] = ()
        self._shown: Sequence[TimedWord] = ()

    def step(self, encoded: Encoded) -> bool:
        """Search on through the next stretch; True when the best hypothesis grew near its end."""
        self._encoded.append(encoded)
        before = len(self._best)
        self._frames, self._best = self._advance(encoded)
        if self._live:
            # For every live stream, whether or not it wants interims: stable words bind the final, and a transcript
            # must not depend on who watched it grow.
            self._shown = self._stabiliser.update(self._best, self._shared())
        grew = len(self._best) > before
        return grew and (self._frames - self._best[-1].end_frame) * self.frame_s <= NEW_TOKEN_S

    @property
    def has_words(self) -> bool:
        return bool(self._best)

    def best(self, *, offset_s: float) -> Hypothesis:
        """The best hypothesis so far, in stream time, stable words first, with those that are held back."""
        return Hypothesis(tuple(self._word(word, offset_s, 0.0) for word in self._shown))

    def partial(self, *, offset_s: float) -> tuple[Hypothesis, int]:
        """What of the best hypothesis is shown, in stream time, and how many of its first words are stable."""
        stable = len(self._stabiliser.stable)
        old = itertools.takewhile(lambda word: word.end_frame + self._hold_back <= self._frames, self._shown)
        shown = self._shown[: max(stable, sum(1 for _ in old))]
        return Hypothesis(tuple(self._word(word, offset_s, 0.0) for word in shown)), stable

    def n_best(self) -> list[tuple[tuple[TimedWord, ...], float]]:
        """What the utterance may have been, with scores, best first, each starting with the stable words."""
        spliced: dict[tuple[str, ...], tuple[tuple[TimedWord, ...], float]] = {}
        for words, score in self._ranked() if self._encoded else ():
            if words:
                kept = self._stabiliser.splice(words) if self._stabiliser.stable else tuple(words)
                spliced.setdefault(tuple(word.text for word in kept), (kept, score))
        return list(spliced.values())

    def final(self, *, offset_s: float) -> tuple[Hypothesis, ...]:
        """Ranked alternatives, best first, each starting with the stable words; none when there are no words."""
        found = self.n_best()
        hypotheses = []
        for (words, score), sure in zip(found, self._confidences(found), strict=False):
            placed = tuple(self._word(w, offset_s, c) for w, c in zip(words, sure, strict=True))
            hypotheses.append(Hypothesis(placed, score, float(np.mean(sure))))
        return tuple(hypotheses)

    def _confidences(self, found: Sequence[tuple[Sequence[TimedWord], float]]) -> list[tuple[float, ...]]:
        """Of the words of the first `limit` hypotheses."""
        if not found:
            return []
        n_best, scores = [words for words, _ in found], [score for _, score in found]
        if self._word_confidence is None:
            weights = posteriors(scores, self._confidence_scale).tolist()
            return [word_confidences(words, n_best, weights) for words in n_best[: self._limit]]
        phones, pieces, hidden = self._phones().numpy(), self._pieces().numpy(), self._hidden()
        return [
            self._word_confidence(words, n_best, scores, phones=phones, pieces=pieces, hidden=hidden)
            for words in n_best[: self._limit]
        ]

    def reset(self) -> None:
        """Begin the next utterance."""
        self._stabiliser.reset()
        self._encoded, self._frames, self._best, self._shown = [], 0, (), ()

    @abstractmethod
    def _advance(self, encoded: Encoded) -> tuple[int, Sequence[TimedWord]]:
        """Search on; returns the frames so far and the best hypothesis' words."""

    @abstractmethod
    def _shared(self) -> int:
        """How many first words all hypotheses in the beam share: every later one starts with them."""

    @abstractmethod
    def _ranked(self) -> list[tuple[Sequence[TimedWord], float]]:
        """The utterance's hypotheses with their final scores, best first, without repeats."""

    def _phones(self) -> Tensor:
        """(T4, N) log-probabilities of the utterance so far."""
        return torch.from_numpy(np.concatenate([part.phones for part in self._encoded]))

    def _pieces(self) -> Tensor:
        """(T8, V) log-probabilities of the utterance so far."""
        return torch.from_numpy(np.concatenate([part.pieces for part in self._encoded]))

    def _hidden(self) -> Tensor:
        """(T8, D) `encoder_out` of the utterance so far."""
        return torch.cat([part.hidden for part in self._encoded])

    def _word(self, word: TimedWord, offset_s: float, confidence: float) -> Word:
        start_s, end_s = word.start_frame * self.frame_s, word.end_frame * self.frame_s
        return Word(word.text, offset_s + start_s, offset_s + end_s, confidence)
