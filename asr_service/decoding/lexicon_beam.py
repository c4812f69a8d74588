"""Beam search over the phone CTC through the pronunciation tree, with the word n-gram (flashlight-text's decoder).

T frames of 40 ms, V = 40 phones with blank. The search is frame-synchronous: any split of the frames into steps gives
the same result. It holds the interpreter lock while it works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flashlight.lib.text.decoder import CriterionType, DecodeResult, LexiconDecoder, LexiconDecoderOptions
from numpy.typing import NDArray

from asr_service.decoding.hinted_tree import HintedTree
from asr_service.decoding.hypothesis import BeamHypothesis, TimedWord
from asr_service.decoding.language_model import LN10
from asr_service.decoding.pronunciation_tree import COLUMNS, NEVER_COLUMN, PronunciationTree, with_second_names
from asr_service.lexicon import BLANK_ID, PHONE_VOCABULARY_SIZE

MAX_N_BEST = 100
# The phone that begins with a column; 0 for blank and for a second name, with which a phone only goes on.
_PHONE_OF_COLUMN = [column if column < PHONE_VOCABULARY_SIZE else 0 for column in range(COLUMNS)]
# How much further back than asked the library looks for the end of a word.
_EXTRA_LOOK_BACK = 100


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
        max_frames: frames a search holds at most; beyond, words older than `look_back` frames are fixed.
        look_back: frames that stay open when words are fixed.
    """

    beam_size: int = 100
    beam_size_token: int = 10
    beam_threshold: float = 14.0
    lm_weight: float = 0.9
    word_score: float = 0.0
    log_add: bool = True
    max_frames: int = 1500
    look_back: int = 250

    def __post_init__(self) -> None:
        if self.beam_size < 1 or self.beam_size_token < 1 or self.beam_threshold <= 0:
            raise ValueError("beam_size and beam_size_token must be at least 1, beam_threshold above 0")
        if not 0 < self.look_back < self.max_frames - _EXTRA_LOOK_BACK:
            raise ValueError(f"look_back must lie between 0 and max_frames - {_EXTRA_LOOK_BACK}")


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
        self._tree, self._hinted = tree, hinted
        self._phones = _PHONE_OF_COLUMN if hinted is None else hinted.phone_of_column
        self.options = options = options or LexiconBeamOptions()
        self._decoder = LexiconDecoder(
            LexiconDecoderOptions(
                beam_size=options.beam_size,
                # Each phone has two columns, and blank always has its own.
                beam_size_token=min(COLUMNS, 2 * options.beam_size_token + 1)
                if hinted is None
                else hinted.beam_size_token(options.beam_size_token),
                beam_threshold=options.beam_threshold,
                lm_weight=options.lm_weight * LN10,
                word_score=options.word_score,
                unk_score=float("-inf"),
                sil_score=0.0,
                log_add=options.log_add,
                criterion_type=CriterionType.CTC,
            ),
            tree.tree if hinted is None else hinted.tree,
            tree.language_model.kenlm,
            NEVER_COLUMN,
            BLANK_ID,
            tree.language_model.unknown_id,
            [],
            False,
        )
        self.begin()

    def begin(self) -> None:
        """Forget everything and start an utterance."""
        self._decoder.decode_begin()
        self._fixed: tuple[TimedWord, ...] = ()
        self._fixed_phones: tuple[int, ...] = ()
        self._forgotten_score = 0.0
        self._offset = 0
        self._frames = 0
        self._ended = False

    @property
    def frames(self) -> int:
        """Frames decoded since `begin`."""
        return self._frames

    def step(self, log_probs: NDArray[np.float32]) -> None:
        """Search on through (T, 40) log-probabilities. Raises ValueError for another shape, or after `finish`."""
        if log_probs.ndim != 2 or log_probs.shape[1] != PHONE_VOCABULARY_SIZE:
            raise ValueError(f"expected (T, {PHONE_VOCABULARY_SIZE}) log-probabilities, got {log_probs.shape}")
        if self._ended:
            raise ValueError("the utterance has ended: call begin first")
        position = 0
        while position < log_probs.shape[0]:
            # Cut at fixed places of the utterance, so that what is fixed does not depend on how frames arrive.
            room = self._offset + self.options.max_frames - self._frames
            if room <= 0:
                self._fix_words()
                continue
            columns = self._columns(log_probs[position : position + room])
            self._decoder.decode_step(columns.ctypes.data, *columns.shape)
            self._frames += columns.shape[0]
            position += columns.shape[0]

    def best(self) -> BeamHypothesis:
        """The best hypothesis so far, up to the end of its last complete word, and its scores up to there."""
        if self._frames == 0:
            return BeamHypothesis((), 0.0, 0.0, 0.0)
        return self._hypothesis(self._decoder.get_best_hypothesis())

    def beam(self, limit: int = MAX_N_BEST) -> list[BeamHypothesis]:
        """Different word sequences (complete words) that are alive now, best first."""
        if self._frames == 0:
            return []
        return self._distinct(self._decoder.get_all_final_hypothesis(), limit)

    def shared_words(self) -> int:
        """How many first complete words all hypotheses alive now share: every later hypothesis starts with them."""
        if self._frames == 0:
            return 0
        histories = [self._labels(result) for result in self._decoder.get_all_final_hypothesis()]
        if not histories:
            return 0
        # The first and the last in order differ as early as any two.
        first, last = min(histories), max(histories)
        agreed = next((i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
        return len(self._fixed) + min(agreed, len(last))

    def finish(self, limit: int = MAX_N_BEST) -> list[BeamHypothesis]:
        """End the utterance: at most `limit` different word sequences, best first, none without frames."""
        if self._frames == 0:
            return []
        if not self._ended:
            self._decoder.decode_end()
            self._ended = True
        return self._distinct(self._decoder.get_all_final_hypothesis(), limit)

    def _fix_words(self) -> None:
        """Make the best hypothesis' words before the last `look_back` frames final and forget how they were found.

        The library cuts where that hypothesis had just completed a word, up to `_EXTRA_LOOK_BACK` frames earlier.
        """
        best = self._decoder.get_best_hypothesis(self.options.look_back)
        held = len(best.tokens) - 1
        # When it forgets frames the library counts scores from the best of now.
        self._forgotten_score += max(result.score for result in self._decoder.get_all_final_hypothesis())
        self._fixed, self._fixed_phones = self._words_and_phones(best)
        self._decoder.prune(self.options.look_back)
        self._offset += held

    def _distinct(self, results: Sequence[DecodeResult], limit: int) -> list[BeamHypothesis]:
        found: dict[tuple[int, ...], BeamHypothesis] = {}
        # Equal scores come in an order that depends on addresses in memory; the words decide instead.
        for result in sorted(results, key=lambda result: (-result.score, result.words)):
            key = tuple(self._labels(result))
            if key not in found:
                found[key] = self._hypothesis(result)
                if len(found) == min(limit, MAX_N_BEST):
                    break
        return list(found.values())

    def _hypothesis(self, result: DecodeResult) -> BeamHypothesis:
        words, phones = self._words_and_phones(result)
        # The library's sums go on over frames that it has forgotten; only its total starts again there.
        acoustic, lm = result.emittingModelScore, result.lmScore * LN10
        return BeamHypothesis(words, self._forgotten_score + result.score, acoustic, lm, phones)

    def _columns(self, log_probs: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._hinted is None:
            return with_second_names(log_probs, self._frames)
        return self._hinted.with_boosts(log_probs, self._frames, self.options.beam_size_token)

    def _labels(self, result: DecodeResult) -> list[int]:
        """The words' labels of a hypothesis' complete words; those of a phrase one by one."""
        labels = [label for label in result.words if label >= 0]
        if self._hinted is None:
            return labels
        return [word for label in labels for word in self._hinted.words_of(label)]

    def _words_and_phones(self, result: DecodeResult) -> tuple[tuple[TimedWord, ...], tuple[int, ...]]:
        words, phones = list(self._fixed), list(self._fixed_phones)
        spoken: list[tuple[int, int]] = []  # phones since the last label, and the frames in which they begin
        previous = NEVER_COLUMN
        # Entry 0 is the state before the first frame that is still held, the one beyond the frames the sentence end.
        for frame, token, label in zip(
            range(self._offset, self._frames), result.tokens[1:], result.words[1:], strict=False
        ):
            phone = self._phones[token]
            if phone and token != previous:
                spoken.append((phone, frame))
                phones.append(phone)
            if label >= 0:
                words += self._timed(label, spoken, frame + 1)
                spoken = []
            previous = token
        return tuple(words), tuple(phones)

    def _timed(self, label: int, spoken: Sequence[tuple[int, int]], end: int) -> list[TimedWord]:
        """The words of a label, each until the next begins, the last until `end`."""
        # Frames are forgotten where the best hypothesis had completed a word: of another some phones may be gone.
        frames = [frame for _, frame in spoken] or [end - 1]
        if self._hinted is None:
            return [TimedWord(self._tree.words[label], frames[0], end)]
        texts = self._hinted.texts(label)
        begins = self._hinted.begins(label, [phone for phone, _ in spoken])
        starts = [frames[0], *(frames[place] for place in begins), end]
        return [TimedWord(text, starts[place], starts[place + 1]) for place, text in enumerate(texts)]
