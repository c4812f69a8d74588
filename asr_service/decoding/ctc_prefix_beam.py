"""Frame-synchronous CTC prefix beam over word pieces, with an optional word n-gram and an open vocabulary.

Hannun et al. 2014 ("First-pass large vocabulary continuous speech recognition using bi-directional recurrent DNNs"),
algorithm 1: each prefix carries the probability of ending in blank and in its last label, summed over alignments. The
n-gram scores a word when the next one starts, an unknown word as <unk>, so any spelling remains possible.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flashlight.lib.text.decoder import LMState
from numpy.typing import NDArray

from asr_service.decoding.hinted_pieces import HintedPieces, Hoped
from asr_service.decoding.hypothesis import BeamHypothesis, TimedWord
from asr_service.decoding.language_model import WordLanguageModel

_NONE = -math.inf


@dataclass(frozen=True, slots=True)
class PrefixBeamOptions:
    """Settings of the search; weights multiply natural logarithms.

    Attributes:
        beam_size: prefixes kept a frame.
        beam_size_token: only this many likeliest labels may extend a prefix in a frame.
        min_log_prob: nor a label less likely than this.
        lm_weight: weight of the n-gram's log-probability.
        word_score: added for each word.
        max_frames: an utterance longer than this is refused.
    """

    beam_size: int = 16
    beam_size_token: int = 12
    min_log_prob: float = -9.0
    lm_weight: float = 0.4
    word_score: float = 1.0
    max_frames: int = 3000

    def __post_init__(self) -> None:
        if min(self.beam_size, self.beam_size_token, self.max_frames) < 1:
            raise ValueError("beam_size, beam_size_token and max_frames must be at least 1")


@dataclass(slots=True, eq=False)
class _Prefix:
    """One label sequence: a node that knows its parent, so that prefixes share their past.

    `key` is a 64-bit hash of the whole sequence: a prefix that left the beam and comes back merges with its children.
    """

    key: int
    parent: _Prefix | None
    token_id: int
    frame: int
    word: str
    bonus: float
    lm_score: float
    lm_state: LMState | None
    hoped: Hoped | None = None


@dataclass(slots=True)
class _Entry:
    """A prefix in the beam with its log-probabilities of ending in blank and in its last label."""

    prefix: _Prefix
    in_blank: float = _NONE
    in_label: float = _NONE

    @property
    def total(self) -> float:
        return _log_add(self.in_blank, self.in_label)

    @property
    def score(self) -> float:
        return self.total + self.prefix.bonus


class CtcPrefixBeam:
    """One utterance at a time: `begin`, `step`s, `best` in between, `finish`. Memory grows with the frames, up to
    `max_frames` x `beam_size` nodes.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        options: PrefixBeamOptions | None = None,
        language_model: WordLanguageModel | None = None,
        *,
        word_start: str = "▁",
        blank_id: int = 0,
        ignored_ids: Sequence[int] = (1, 2),
        hints: HintedPieces | None = None,
    ) -> None:
        """`pieces` are the V tokens' texts; `ignored_ids` are tokens that CTC never emits (begin and end); `hints` are
        what the stream expects, for the same pieces.
        """
        self._pieces = [piece.removeprefix(word_start) for piece in pieces]
        self._starts_word = [piece.startswith(word_start) for piece in pieces]
        self.options = options or PrefixBeamOptions()
        self._lm = language_model
        self._hints = hints
        self._blank_id = blank_id
        self._ignored = frozenset(ignored_ids)
        self.begin()

    def begin(self) -> None:
        """Forget everything and start an utterance."""
        state = self._lm.start() if self._lm else None
        root = _Prefix(0, None, -1, 0, "", 0.0, 0.0, state, self._hints.start() if self._hints else None)
        self._beam: dict[int, _Entry] = {0: _Entry(root, in_blank=0.0)}
        self._frames = 0

    @property
    def frames(self) -> int:
        return self._frames

    def step(self, log_probs: NDArray[np.float32]) -> None:
        """Search on through (T, V) log-probabilities. Raises ValueError for another V or beyond `max_frames`."""
        if log_probs.ndim != 2 or log_probs.shape[1] != len(self._pieces):
            raise ValueError(f"expected (T, {len(self._pieces)}) log-probabilities, got {log_probs.shape}")
        if self._frames + log_probs.shape[0] > self.options.max_frames:
            raise ValueError(f"an utterance has at most {self.options.max_frames} frames")
        for frame in log_probs:
            self._advance(frame)
            self._frames += 1

    def _advance(self, log_probs: NDArray[np.float32]) -> None:
        width = min(self.options.beam_size_token, log_probs.size)
        likely = np.argpartition(log_probs, -width)[-width:]
        # Sorted, so that ties in the sums below are added in one order however numpy partitions.
        labels = [
            (int(label), float(log_probs[label]))
            for label in np.sort(likely)
            if label != self._blank_id and label not in self._ignored and log_probs[label] > self.options.min_log_prob
        ]
        blank = float(log_probs[self._blank_id])
        following: dict[int, _Entry] = {}
        for key, entry in self._beam.items():
            prefix, total = entry.prefix, entry.total
            stay = following.setdefault(key, _Entry(prefix))
            stay.in_blank = _log_add(stay.in_blank, total + blank)
            if prefix.parent is not None:
                stay.in_label = _log_add(stay.in_label, entry.in_label + float(log_probs[prefix.token_id]))
            for label, log_prob in labels:
                entering = entry.in_blank if label == prefix.token_id else total
                if entering > _NONE:
                    child_key = hash((key, label))
                    child = following.get(child_key)
                    if child is None:
                        known = self._beam.get(child_key)
                        child = _Entry(known.prefix if known else self._extend(child_key, prefix, label))
                        following[child_key] = child
                    child.in_label = _log_add(child.in_label, entering + log_prob)
        kept = heapq.nlargest(self.options.beam_size, following.values(), key=lambda entry: entry.score)
        self._beam = {entry.prefix.key: entry for entry in kept}

    def _extend(self, key: int, prefix: _Prefix, label: int) -> _Prefix:
        child = _Prefix(key, prefix, label, self._frames, prefix.word, prefix.bonus, prefix.lm_score, prefix.lm_state)
        if self._starts_word[label] or prefix.parent is None:
            self._end_word(child)
            child.word = self._pieces[label]
        else:
            child.word += self._pieces[label]
        if self._hints is not None and prefix.hoped is not None:
            child.hoped = self._hints.extended(prefix.hoped, label)
            child.bonus += child.hoped.score - prefix.hoped.score
        return child

    def _end_word(self, prefix: _Prefix) -> None:
        """Score the word before, where there is one."""
        if prefix.word:
            if self._lm is not None and prefix.lm_state is not None:
                prefix.lm_state, log_prob = self._lm.score(prefix.lm_state, prefix.word)
                prefix.lm_score += log_prob
                prefix.bonus += self.options.lm_weight * log_prob
            prefix.bonus += self.options.word_score

    def best(self) -> BeamHypothesis:
        """The best hypothesis so far, its last word perhaps unfinished."""
        return self._hypothesis(max(self._beam.values(), key=lambda entry: entry.score), ended=False)

    def beam(self, limit: int = 100) -> list[BeamHypothesis]:
        """What is alive now, best first."""
        return self._ranked(limit, ended=False)

    def finish(self, limit: int = 100) -> list[BeamHypothesis]:
        """At most `limit` different word sequences, best first, the last word and the sentence end scored."""
        return self._ranked(limit, ended=True)

    def _ranked(self, limit: int, *, ended: bool) -> list[BeamHypothesis]:
        found: dict[tuple[str, ...], BeamHypothesis] = {}
        hypotheses = [self._hypothesis(entry, ended=ended) for entry in self._beam.values()]
        for hypothesis in sorted(hypotheses, key=lambda hypothesis: (-hypothesis.score, hypothesis.texts)):
            found.setdefault(hypothesis.texts, hypothesis)
        return list(found.values())[:limit]

    def _hypothesis(self, entry: _Entry, *, ended: bool) -> BeamHypothesis:
        prefix, acoustic = entry.prefix, entry.total
        bonus, lm_score = prefix.bonus, prefix.lm_score
        if ended and self._lm is not None and prefix.lm_state is not None:
            last = _Prefix(0, None, -1, 0, prefix.word, 0.0, 0.0, prefix.lm_state)
            self._end_word(last)
            assert last.lm_state is not None
            end = self._lm.end(last.lm_state)
            bonus += last.bonus + self.options.lm_weight * end
            lm_score += last.lm_score + end
        elif ended and prefix.word:
            bonus += self.options.word_score
        if ended and self._hints is not None and prefix.hoped is not None:
            bonus += self._hints.ended(prefix.hoped) - prefix.hoped.score
        return BeamHypothesis(self._words(prefix), acoustic + bonus, acoustic, lm_score)

    def _words(self, prefix: _Prefix) -> tuple[TimedWord, ...]:
        tokens: list[_Prefix] = []
        node: _Prefix | None = prefix
        while node is not None and node.parent is not None:
            tokens.append(node)
            node = node.parent
        words: list[TimedWord] = []
        for index, token in enumerate(reversed(tokens)):
            piece = self._pieces[token.token_id]
            if index == 0 or self._starts_word[token.token_id]:
                words.append(TimedWord(piece, token.frame, token.frame + 1))
            else:
                words[-1] = TimedWord(words[-1].text + piece, words[-1].start_frame, token.frame + 1)
        return tuple(word for word in words if word.text)


def _log_add(left: float, right: float) -> float:
    if left < right:
        left, right = right, left
    return left if right == _NONE else left + math.log1p(math.exp(right - left))
