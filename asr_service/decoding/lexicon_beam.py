"""Beam search over the phone CTC through the pronunciation tree, with the word n-gram.

T frames of 40 ms, K hypotheses, V = 40 phones with blank. The search is frame-synchronous: any split of the frames into
steps gives the same result.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from flashlight.lib.text.decoder import LMState
from numpy.typing import NDArray

from asr_service.decoding.hinted_tree import HintedTree
from asr_service.decoding.hypothesis import BeamHypothesis, TimedWord
from asr_service.decoding.language_model import WordLanguageModel
from asr_service.decoding.pronunciation_tree import ROOT, PronunciationTree
from asr_service.decoding.search_arrays import HISTORY, NODE, Beam, Candidates, Frame
from asr_service.decoding.search_trace import Path, SearchTrace
from asr_service.decoding.token_passing import advance, missing_words
from asr_service.decoding.traced_words import TracedWord, traced_words
from asr_service.decoding.word_histories import NO_WORDS, WordHistories
from asr_service.lexicon import BLANK_ID, PHONE_VOCABULARY_SIZE
from asr_service.parts import Parts, at_once

MAX_N_BEST = 256
# Word sequences that a search remembers; beyond, those that no hypothesis has any more are forgotten.
MOST_HISTORIES = 1 << 14
# Candidates of a frame for each hypothesis of the beam and phone that may begin.
_CANDIDATES = 3
# N-gram questions of a frame that are answered at once.
_QUESTIONS = 4096
# A look ahead only has to find the likeliest hypothesis: those this much below it are dropped.
_LOOK_AHEAD_THRESHOLD = 10.0

_of_thread = threading.local()


def _shared_room(candidates: int) -> Candidates:
    """Room that all searches of a thread work in, one frame at a time: it stays in the processor's cache."""
    rooms: dict[int, Candidates] = _of_thread.__dict__.setdefault("rooms", {})
    if candidates not in rooms:
        rooms[candidates] = Candidates.room_for(candidates)
    return rooms[candidates]


@dataclass(frozen=True, slots=True)
class LexiconBeamOptions:
    """Settings of the search; weights multiply natural logarithms.

    Attributes:
        beam_size: hypotheses kept a frame.
        beam_size_token: only this many likeliest phones (blank aside) may extend a hypothesis in a frame.
        beam_threshold: hypotheses this much below the best are dropped.
        lm_weight: weight of the n-gram's log-probability.
        word_score: added for each word.
        log_add: sum the alignments of a hypothesis instead of keeping the best one.
        context_words: hypotheses whose last so many words are the same go on as one, the likeliest; what the others
            were comes back at the end of the utterance.
        sure_margin: a word is sure when all hypotheses whose scores are less than this below the best one's have it.
        n_best_margin: hypotheses further below the best one are not worth a place in the n-best list.
        max_frames: frames a search holds at most; beyond, words older than `look_back` frames are fixed.
        look_back: frames that stay open when words are fixed.
    """

    beam_size: int = 100
    beam_size_token: int = 10
    beam_threshold: float = 14.0
    lm_weight: float = 0.9
    word_score: float = 0.0
    log_add: bool = True
    context_words: int = 2
    sure_margin: float = 4.0
    n_best_margin: float = 6.0
    max_frames: int = 1500
    look_back: int = 250

    def __post_init__(self) -> None:
        if self.beam_size < 1 or self.beam_size_token < 1 or not self.beam_threshold > 0:  # NaN is not
            raise ValueError("beam_size and beam_size_token must be at least 1, beam_threshold above 0")
        if self.context_words < 1 or not (self.sure_margin > 0 and self.n_best_margin > 0):
            raise ValueError("context_words must be at least 1, sure_margin and n_best_margin above 0")
        if not 0 < self.look_back < self.max_frames:
            raise ValueError("look_back must lie between 0 and max_frames")


def _extend(
    model: WordLanguageModel, options: LexiconBeamOptions, hinted: HintedTree | None, state: LMState, label: int
) -> tuple[LMState, float, float]:
    """The state after a label's words, their ln p, and what they add to a score."""
    words, boost = 1, 0.0
    if hinted is None:
        state, log_prob = model.score_id(state, label)
    else:
        words = len(hinted.texts(label))
        state, log_prob, boost = hinted.score(state, label)
    return state, log_prob, options.lm_weight * log_prob + options.word_score * words + boost


class LexiconBeam:
    """One utterance at a time: `begin`, any number of `step`s, `best` in between, `finish`; then `begin` again.

    Memory is bounded by `max_frames` x `beam_size` hypotheses. Not thread-safe; the tree it was given is shared.
    """

    def __init__(
        self, tree: PronunciationTree, options: LexiconBeamOptions | None = None, hinted: HintedTree | None = None
    ) -> None:
        """`hinted`: the stream's own tree in the place of `tree`, made for the `lm_weight` of `options`. The boosts
        that a hypothesis got count in its score and in its acoustic score.
        """
        self.options = options = options or LexiconBeamOptions()
        self._tree, self._hinted = tree, hinted
        self._arrays = tree.arrays(options.lm_weight) if hinted is None else hinted.arrays
        self._root = ROOT if hinted is None else hinted.root
        self._phones = min(options.beam_size_token, PHONE_VOCABULARY_SIZE - 1)
        self._most_candidates = max(1024, _CANDIDATES * options.beam_size * self._phones)
        self._missing = np.zeros((_QUESTIONS, 2), dtype=np.int64)
        # The beam before and after a frame, in turns.
        self._beams = [
            Beam(np.zeros((options.beam_size, 3), dtype=np.int32), np.zeros(options.beam_size)) for _ in range(2)
        ]
        self.begin()

    def begin(self) -> None:
        """Forget everything and start an utterance."""
        # It does not refer to the search, which so is freed at once with all its states when its stream has ended, not
        # 10 ms long by the garbage collector, in whatever thread that runs.
        model = self._tree.language_model
        extend = partial(_extend, model, self.options, self._hinted)
        self._histories = WordHistories(model.start(), extend, self.options.context_words)
        self._most_histories = MOST_HISTORIES
        self._turn, self._count = 0, 1
        self._beams[0].places[0] = self._root, BLANK_ID, NO_WORDS
        self._beams[0].scores[0] = 0.0
        self._trace = SearchTrace(self.options.beam_size, self.options.max_frames)
        self._offset = 0  # frames before the trace
        self._fixed: tuple[TimedWord, ...] = ()
        self._fixed_phones: tuple[int, ...] = ()
        self._fixed_history = NO_WORDS
        self._ended = False

    @property
    def frames(self) -> int:
        """Frames decoded since `begin`."""
        return self._offset + self._trace.held

    def step(self, log_probs: NDArray[np.float32]) -> None:
        """Search on through (T, 40) log-probabilities. Raises ValueError for another shape, or after `finish`."""
        for frame in self._prepared(log_probs):
            # Cut at fixed places of the utterance, so that what is fixed does not depend on how frames arrive.
            if self._trace.held == self.options.max_frames:
                self._fix_words()
            if len(self._histories) > self._most_histories:
                self._forget_histories()
            self._frame(frame, self.options.beam_threshold)

    def best_after(self, log_probs: NDArray[np.float32]) -> tuple[int, tuple[TimedWord, ...]]:
        """What `frames` and the words of `best` would be after (T, 40) log-probabilities more.

        The search stays where it is. Looks with a narrower beam, and no further than to where words are fixed next:
        `frames` says how far. Raises ValueError as `step` does.
        """
        coming = self._prepared(log_probs)
        beam, held = Beam(self._alive.copy(), self._alive_scores.copy()), self._trace.held
        for frame in coming[: self.options.max_frames - held]:
            self._frame(frame, min(_LOOK_AHEAD_THRESHOLD, self.options.beam_threshold))
        frames, words = self.frames, self.best().words
        self._count = len(beam.scores)
        self._trace.forget_after(held, self._count)
        self._alive[...], self._alive_scores[...] = beam.places, beam.scores
        return frames, words

    def best(self) -> BeamHypothesis:
        """The best hypothesis so far, up to the end of its last complete word, and its scores."""
        if self.frames == 0:
            return BeamHypothesis((), 0.0, 0.0, 0.0)
        path = self._best_path()
        ahead = float(self._arrays.ahead[self._alive[path.hypotheses[-1], NODE]])
        return self._hypothesis(path, ahead)

    def sure_words(self, first: int = 0) -> int:
        """How many first words of `best` its rivals share (`sure_margin`), those that it has beaten included.

        Its `first` words are settled: what differs in them is no rival.
        """
        if self.frames == 0:
            return 0
        path, margin, histories = self._best_path(), self.options.sure_margin, self._histories
        best = int(path.histories[-1])
        texts = (len(self._texts(label)) for label in histories.words(best))
        words = list(itertools.accumulate(texts, initial=0))  # by number of labels
        near = np.unique(self._alive[self._alive_scores > path.score - margin, HISTORY])
        pairs = [(best, history) for history in near.tolist()] + self._trace.rivals(path, margin)
        shared = (words[histories.depth(histories.common(one, other))] for one, other in pairs)
        return min((count for count in shared if count >= first), default=words[-1])

    def finish(self, limit: int = MAX_N_BEST, first: Sequence[str] = ()) -> list[BeamHypothesis]:
        """End the utterance: at most `limit` different word sequences, best first, none without frames.

        Where no hypothesis has just completed a word, the words before the one that was begun are the answer. What was
        beaten on the way counts if it starts with the words `first`.
        """
        return at_once(self.finish_parts(limit, first))

    def finish_parts(self, limit: int = MAX_N_BEST, first: Sequence[str] = ()) -> Parts[list[BeamHypothesis]]:
        """`finish` a hypothesis at a time; nothing else may be asked of the search in between."""
        if self.frames == 0:
            return []
        self._ended = True
        complete = np.flatnonzero(self._alive[:, NODE] == self._root)
        chosen = complete if len(complete) else np.arange(self._count)
        ends: dict[int, float] = {}
        scores: dict[int, float] = {}
        for index in chosen.tolist():
            node, _, history = self._alive[index].tolist()
            if history not in ends:
                ends[history] = self.options.lm_weight * self._end(history)
            scores[index] = float(self._alive_scores[index] - self._arrays.ahead[node]) + ends[history]
        starts, margin = partial(self._starts_with, tuple(first)), self.options.n_best_margin
        paths = yield from self._trace.paths(
            self._distinct(scores), self._histories, min(limit, MAX_N_BEST), margin, starts
        )
        found = []
        for path in paths:
            yield
            found.append(self._hypothesis(path, ends=True))
        return found

    # --- inside ----------------------------------------------------------------------------------------------------

    @property
    def _alive(self) -> NDArray[np.int32]:
        """(K, 3) places."""
        return self._beams[self._turn].places[: self._count]

    def _best_path(self) -> Path:
        index = int(self._alive_scores.argmax())
        return self._trace.path(index, float(self._alive_scores[index]))

    @property
    def _alive_scores(self) -> NDArray[np.float64]:
        return self._beams[self._turn].scores[: self._count]

    def _prepared(self, log_probs: NDArray[np.float32]) -> list[Frame]:
        """Each row of (T, 40) log-probabilities with the phones that may extend a hypothesis there."""
        if log_probs.ndim != 2 or log_probs.shape[1] != PHONE_VOCABULARY_SIZE:
            raise ValueError(f"expected (T, {PHONE_VOCABULARY_SIZE}) log-probabilities, got {log_probs.shape}")
        if self._ended:
            raise ValueError("the utterance has ended: call begin first")
        log_probs = np.ascontiguousarray(log_probs, dtype=np.float32)
        likeliest = np.argpartition(log_probs[:, 1:], -self._phones, axis=1)[:, -self._phones :]
        allowed = np.zeros(log_probs.shape, dtype=bool)
        np.put_along_axis(allowed, likeliest + 1, True, axis=1)
        return [Frame(row, begin) for row, begin in zip(log_probs, allowed, strict=True)]

    def _frame(self, frame: Frame, threshold: float) -> None:
        """Take one frame; hypotheses further than `threshold` below the best are dropped."""
        options, histories = self.options, self._histories
        beam = Beam(self._alive, self._alive_scores)
        candidates = _shared_room(self._most_candidates)
        count = _QUESTIONS
        while count == _QUESTIONS:
            histories.make_room(_QUESTIONS)
            count, least, wanted = missing_words(
                self._arrays,
                frame,
                threshold,
                options.beam_size,
                beam,
                histories.keys,
                self._missing,
                candidates.leading,
            )
            histories.add(self._missing[:count])
        parents, merged = self._trace.room()
        self._turn = 1 - self._turn
        self._count, beaten = advance(
            self._arrays,
            self._root,
            frame,
            least,
            wanted,
            threshold,
            options.log_add,
            beam,
            histories.keys,
            histories.values,
            histories.gains,
            histories.contexts,
            candidates,
            self._beams[self._turn],
            parents,
            merged,
        )
        self._trace.add(Beam(self._alive, self._alive_scores), beaten)

    def _texts(self, label: int) -> tuple[str, ...]:
        return (self._tree.words[label],) if self._hinted is None else self._hinted.texts(label)

    def _starts_with(self, first: tuple[str, ...], history: int) -> bool:
        texts = itertools.chain.from_iterable(map(self._texts, self._histories.words(history)))
        return tuple(itertools.islice(texts, len(first))) == first

    def _end(self, history: int) -> float:
        return self._tree.language_model.end(self._histories.state(history))

    def _forget_histories(self) -> None:
        new = self._histories.keep([*np.unique(self._trace.in_use()).tolist(), self._fixed_history])
        self._alive[:, HISTORY] = new[self._alive[:, HISTORY]]
        self._trace.renumber(new)
        self._fixed_history = int(new[self._fixed_history])
        self._most_histories = max(MOST_HISTORIES, 2 * len(self._histories))

    def _distinct(self, scores: dict[int, float]) -> list[tuple[int, float]]:
        """Of the hypotheses with these scores one a word sequence, with the sum or best of its scores."""
        merge = np.logaddexp if self.options.log_add else max
        totals: dict[int, float] = {}
        best: dict[int, int] = {}
        for index, score in scores.items():
            history = int(self._alive[index, HISTORY])
            if history not in totals:
                totals[history], best[history] = score, index
                continue
            if score > scores[best[history]]:
                best[history] = index
            totals[history] = float(merge(totals[history], score))
        # Equal scores: the words decide.
        ranked = sorted(totals, key=lambda history: (-totals[history], self._histories.words(history)))
        return [(best[history], totals[history]) for history in ranked]

    def _hypothesis(self, path: Path, ahead: float = 0.0, *, ends: bool = False) -> BeamHypothesis:
        """What a path says: begun with look-ahead `ahead`, or as a sentence that `ends`."""
        history = int(path.histories[-1])
        words, phones = self._read(path.phones, path.histories)
        lm = self._histories.log_prob(history) + (self._end(history) if ends else 0.0)
        priors = self.options.lm_weight * lm + self.options.word_score * len(words)
        return BeamHypothesis(words, path.score, path.score - priors - ahead, lm, phones)

    def _read(
        self, sounds: NDArray[np.int64], histories: NDArray[np.int64]
    ) -> tuple[tuple[TimedWord, ...], tuple[int, ...]]:
        """The words and phones of a trace, after those that are fixed."""
        words, phones = list(self._fixed), list(self._fixed_phones)
        for word in traced_words(sounds, histories, self._fixed_history):
            words += self._timed(self._histories.last_word(word.history), word)
            phones += word.phones
        return tuple(words), tuple(phones)

    def _timed(self, label: int, found: TracedWord) -> list[TimedWord]:
        """The words of a label: each lasts until the next begins, the last until `found` ends."""
        texts = self._texts(label)
        if len(texts) == 1:
            return [TimedWord(texts[0], self._offset + found.frames[0], self._offset + found.end)]
        # Of a word that was begun when frames were forgotten some phones are gone: its phrase is not cut into words.
        begins = self._hinted.word_begins(label, found.phones) if self._hinted is not None else ()
        starts = [found.frames[0], *(found.frames[place] for place in begins)]
        starts += [found.end] * (len(texts) - len(begins))
        return [
            TimedWord(text, self._offset + starts[place], self._offset + starts[place + 1])
            for place, text in enumerate(texts)
        ]

    def _fix_words(self) -> None:
        """Make the best hypothesis' words before the last `look_back` frames final, and forget how they were found.

        The cut is where that hypothesis had completed a word; hypotheses that had other words by then are dropped.
        """
        path = self._best_path()
        sounds, histories = path.phones, path.histories
        oldest = self._trace.held - self.options.look_back
        completed = np.flatnonzero(histories != np.concatenate([[self._fixed_history], histories[:-1]]))
        lasts = np.append(np.flatnonzero(sounds[1:] != sounds[:-1]), self._trace.held - 1)
        ends = lasts[np.searchsorted(lasts, completed)]  # a word ends with the run of its last phone
        cut = int(max(ends[ends < oldest], default=oldest))
        kept_history = int(histories[cut])
        self._fixed, self._fixed_phones = self._read(sounds[: cut + 1], histories[: cut + 1])
        alive = self._trace.cut(path, cut)
        beam = self._beams[self._turn]
        beam.places[: len(alive)], beam.scores[: len(alive)] = beam.places[alive], beam.scores[alive]
        self._count = len(alive)
        self._fixed_history = kept_history
        self._offset += cut + 1
