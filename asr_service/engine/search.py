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
from asr_service.engine.runner import Encoded
from asr_service.parts import Parts, at_once
from asr_service.types import Hypothesis, Word

# Frames of `encoder_out` that a search of a whole utterance goes along at once.
PART_FRAMES = 8
# A word that ended this close to the end of what was encoded is news to the endpointer.
NEW_WORD_S = 0.16


class UtteranceSearch(ABC):
    """One utterance at a time: any number of `step`s, `partial`s in between, `final`, `reset`."""

    def __init__(
        self,
        *,
        frame_s: float,
        limit: int,
        confidence_scale: float,
        agreement: int | None,
        hold_back_s: float = 0.0,
    ) -> None:
        """`frame_s`: length of the frames that words are placed in. `limit`: alternatives at most. `confidence_scale`
        flattens the n-best list's posteriors. `agreement`: updates that a word must stand unchanged to be stable (see
        `Stabiliser`), None where nothing is shown before the final.
        `hold_back_s`: how long before the last frame, looked ahead at or not, a word must have ended to be shown before
        it is stable.
        """
        self._frame_s = frame_s
        self._limit = limit
        self._confidence_scale = confidence_scale
        self._live = agreement is not None
        self._hold_back = round(hold_back_s / self._frame_s)
        self._stabiliser = Stabiliser(agreement or 0)
        self._encoded: list[Encoded] = []
        self._frames = 0
        self._best: Sequence[TimedWord] = ()
        self._spliced: Sequence[TimedWord] = ()

    def step(self, encoded: Encoded) -> bool:
        """Search on through the next stretch; True when the best hypothesis grew near its end."""
        self._encoded.append(encoded)
        before = len(self._best)
        self._frames, self._best = self._advance(encoded)
        if self._live:
            # For every live stream, whether or not it wants interims: stable words bind the final, and a transcript
            # must not depend on who watched it grow.
            self._spliced = self._stabiliser.update(self._best, self._shared())
        grew = len(self._best) > before
        return grew and (self._frames - self._best[-1].end_frame) * self._frame_s <= NEW_WORD_S

    @property
    def has_words(self) -> bool:
        return bool(self._best)

    def best(self, *, offset_s: float) -> Hypothesis:
        """The best hypothesis so far, in stream time, stable words first, with those that are held back; none where
        nothing is shown before the final.
        """
        return Hypothesis(tuple(self._word(word, offset_s, 0.0) for word in self._spliced))

    def partial(self, *, offset_s: float) -> tuple[Hypothesis, int]:
        """What of the best hypothesis is shown, in stream time, and how many of its first words are stable.

        Frames that were only looked ahead at count for those that are not: what is shown so early may be wrong, as
        anything that is not stable may, and nothing comes of it but what is shown.
        """
        frames, best = self._ahead()
        words, stable = self._stabiliser.splice(best), len(self._stabiliser.stable)
        old = itertools.takewhile(lambda word: word.end_frame + self._hold_back <= frames, words)
        shown = words[: max(stable, sum(1 for _ in old))]
        return Hypothesis(tuple(self._word(word, offset_s, 0.0) for word in shown)), stable

    def n_best(self) -> list[tuple[tuple[TimedWord, ...], float]]:
        """What the utterance may have been, with scores, best first, each starting with the stable words: without such
        words perhaps nothing at all, an entry like the others.
        """
        return at_once(self._n_best_parts())

    def _n_best_parts(self) -> Parts[list[tuple[tuple[TimedWord, ...], float]]]:
        spliced: dict[tuple[str, ...], tuple[tuple[TimedWord, ...], float]] = {}
        for words, score in (yield from self._ranked()) if self._encoded else ():
            kept = self._stabiliser.splice(words)
            spliced.setdefault(tuple(word.text for word in kept), (kept, score))
        return list(spliced.values())

    def final(self, *, offset_s: float) -> tuple[Hypothesis, ...]:
        """Ranked alternatives, best first, each starting with the stable words; none where no words rank first."""
        return at_once(self.final_parts(offset_s=offset_s))

    def final_parts(self, *, offset_s: float) -> Parts[tuple[Hypothesis, ...]]:
        """`final` part by part; nothing else may be asked of the search in between."""
        found = yield from self._n_best_parts()
        n_best, scores = [words for words, _ in found], [score for _, score in found]
        if not n_best or not n_best[0]:
            return ()
        # Where nothing at all comes later, it is no alternative to tell, but the words before are the less sure for it.
        told = [entry for entry in found if entry[0]][: self._limit]
        texts = {tuple(word.text for word in words) for words in n_best}
        for words, score in self._beyond_ranking():
            kept = self._stabiliser.splice(words)
            text = tuple(word.text for word in kept)
            if len(told) < self._limit and kept and text not in texts:
                texts.add(text)
                told.append((kept, min(score, told[-1][1])))
        hypotheses = []
        for words, score in told:
            yield
            sure = self._confidences(words, n_best, scores)
            placed = tuple(self._word(w, offset_s, c) for w, c in zip(words, sure, strict=True))
            hypotheses.append(Hypothesis(placed, score, float(np.mean(sure))))
        return tuple(hypotheses)

    def _confidences(
        self, words: Sequence[TimedWord], n_best: Sequence[Sequence[TimedWord]], scores: Sequence[float]
    ) -> tuple[float, ...]:
        """Of the words of a hypothesis; the entries of `n_best` have `scores`."""
        return word_confidences(words, n_best, posteriors(scores, self._confidence_scale).tolist())

    def reset(self) -> None:
        """Begin the next utterance."""
        self._stabiliser.reset()
        self._encoded, self._frames, self._best, self._spliced = [], 0, (), ()

    @abstractmethod
    def _advance(self, encoded: Encoded) -> tuple[int, Sequence[TimedWord]]:
        """Search on; returns the frames so far and the best hypothesis' words."""

    def _ahead(self) -> tuple[int, Sequence[TimedWord]]:
        """The frames with those looked ahead at, and the best hypothesis' words by then; the search stays as it is."""
        return self._frames, self._best

    @abstractmethod
    def _shared(self) -> int:
        """How many first words no hypothesis of the beam denies that could still win."""

    @abstractmethod
    def _ranked(self) -> Parts[list[tuple[Sequence[TimedWord], float]]]:
        """The utterance's hypotheses with their final scores, best first, without repeats."""

    def _beyond_ranking(self) -> Sequence[tuple[Sequence[TimedWord], float]]:
        """Hypotheses that cannot win, likely ones first: what is told where more alternatives are wanted than ranked.

        They are no part of the ranking, so that neither the best words nor how sure they are depend on what is told.
        """
        return ()

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
        start_s, end_s = word.start_frame * self._frame_s, word.end_frame * self._frame_s
        return Word(word.text, offset_s + start_s, offset_s + end_s, confidence)
