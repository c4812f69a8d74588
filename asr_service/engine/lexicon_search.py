"""Phones through the pronunciation tree with the word n-gram; then the n-best list is ranked once more.

While somebody speaks the lexicon beam goes along frame by frame. At the end of the utterance the word-piece CTC and the
decoder say what they think of each hypothesis: they see the same audio in other units, and err elsewhere. The neural
language model reads those that may still win. A word that the lexicon lacks can come from the word-piece CTC's spelling
alone, at the end of the utterance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from asr_service.decoding.hinted_tree import HintedTree
from asr_service.decoding.hypothesis import BeamHypothesis, TimedWord
from asr_service.decoding.lexicon_beam import LexiconBeam, LexiconBeamOptions
from asr_service.decoding.open_vocabulary import ExpectedSpellings, spelled_words, with_spelled_words
from asr_service.decoding.prefix_scores import AttentionScores, PrefixScores, attention_scores, internal_lm_scores
from asr_service.decoding.pronunciation_tree import PronunciationTree
from asr_service.decoding.rescoring import NO_ALIGNMENT, RescoringWeights, ctc_log_likelihoods
from asr_service.decoding.word_features import WordConfidence
from asr_service.engine.frames import PHONE_FRAME_S
from asr_service.engine.runner import Encoded
from asr_service.engine.search import UtteranceSearch
from asr_service.model.bundle import Bundle
from asr_service.model.tree_cache import TreeCache
from asr_service.parts import Parts


class _Heard(NamedTuple):
    """A hypothesis' words, its score without the neural language model, and its log-probability under the n-gram."""

    text: str
    score: float
    n_gram: float


class LexiconSearch(UtteranceSearch):
    """For a bundle with phones, lexicon and language model."""

    def __init__(
        self,
        bundle: Bundle,
        tree: PronunciationTree,
        options: LexiconBeamOptions,
        weights: RescoringWeights,
        *,
        n_best: int,
        neural_margin: float,
        limit: int,
        confidence_scale: float,
        agreement: int | None,
        hold_back_s: float = 0.0,
        word_confidence: WordConfidence | None = None,
        hinted: HintedTree | None = None,
    ) -> None:
        """`n_best`, `neural_margin`: see `DecodingConfig`. `word_confidence`: without it the n-best list's posteriors
        are the confidences. `hinted`: the tree for what the stream expects to hear, made for the `lm_weight` of
        `options`.
        """
        super().__init__(
            frame_s=PHONE_FRAME_S,
            limit=limit,
            confidence_scale=confidence_scale,
            agreement=agreement,
            hold_back_s=hold_back_s,
        )
        self._word_confidence = word_confidence
        # Of the utterance, from its ranking on.
        self._attention: AttentionScores | None = None
        self._internal_lm: AttentionScores | None = None
        self._text: PrefixScores[TreeCache] | None = None
        self._unread: list[tuple[Sequence[TimedWord], float]] = []
        self._bundle, self._weights, self._n_best = bundle, weights, n_best
        self._neural_lm = bundle.neural_lm if weights.neural_lm else None
        # Where nothing is read, nothing is saved by leaving hypotheses out.
        self._neural_margin = math.inf if self._neural_lm is None else neural_margin
        self._tree = tree
        self._hints = hinted.hints if hinted is not None else None
        unheard = {word for phrase in hinted.unheard for word in phrase} - tree.known if hinted is not None else ()
        self._expected = ExpectedSpellings(word for word in unheard if not bundle.pieces.unknown_characters(word))
        self._beam = LexiconBeam(tree, options, hinted)

    def reset(self) -> None:
        super().reset()
        self._attention = self._internal_lm = self._text = None
        self._unread = []
        self._beam.begin()

    def _advance(self, encoded: Encoded) -> tuple[int, Sequence[TimedWord]]:
        self._beam.step(encoded.phones)
        return self._beam.frames, self._beam.best().words

    def _ahead(self) -> tuple[int, Sequence[TimedWord]]:
        ahead = self._encoded[-1].ahead if self._encoded else None
        if ahead is None or not len(ahead):
            return super()._ahead()
        return self._beam.best_after(ahead)

    def _shared(self) -> int:
        return self._beam.sure_words(len(self._stabiliser.stable))

    @torch.inference_mode()
    def _ranked(self) -> Parts[list[tuple[Sequence[TimedWord], float]]]:
        stable = [word.text for word in self._stabiliser.stable]
        found = yield from self._beam.finish_parts(self._n_best, stable)
        if not found:
            return []
        yield
        self._attention = attention_scores(self._bundle.model.decoder, self._hidden())
        if self._weights.internal_lm:
            self._internal_lm = internal_lm_scores(self._bundle.model.decoder)
        if self._neural_lm is not None:
            self._text = PrefixScores(self._neural_lm[0], self._neural_lm[0].start_tree())
        pronounced = ctc_log_likelihoods(self._phones(), [hypothesis.phone_ids for hypothesis in found])
        phones = pronounced.clamp(min=NO_ALIGNMENT).tolist()
        heard = yield from self._heard([hypothesis.words for hypothesis in found], phones, self._attention)
        kept, left = self._worth_reading(heard)
        scores = yield from self._read([heard[index] for index in kept])
        self._unread = [(found[index].words, heard[index].score) for index in left[: self._limit]]
        ranked: list[tuple[Sequence[TimedWord], float]] = [
            (found[index].words, score) for index, score in zip(kept, scores, strict=True)
        ]
        best, _ = max(zip(kept, scores, strict=True), key=lambda entry: entry[1])
        ranked += yield from self._open(found[best], phones[best], heard[best].score, self._attention)
        return sorted(ranked, key=lambda entry: -entry[1])

    def _open(
        self, best: BeamHypothesis, phones: float, best_heard: float, attention: AttentionScores
    ) -> Parts[list[tuple[Sequence[TimedWord], float]]]:
        """`best` with spelled words that the lexicon lacks, scored; `phones` and `best_heard` are of `best`.

        Nobody knows how they are pronounced: their phones are taken to fit as well as those of what they replace. The
        n-gram cannot stand in for the neural language model here: those are read that are not far behind without it.
        """
        config = self._bundle.model.config
        ratio = config.output_subsampling // config.subsampling
        spelled = spelled_words(self._bundle.pieces, self._pieces().numpy(), ratio=ratio)
        expected = yield from self._expected.near(spelled)
        opened = with_spelled_words(best.words, [*spelled, *expected], self._tree.known)
        if not opened:
            return []
        found = yield from self._heard(opened, [phones] * len(opened), attention)
        likely: list[tuple[Sequence[TimedWord], _Heard]] = []
        for words, heard in zip(opened, found, strict=True):
            # What the stream expects is no unknown word to it.
            is_expected = any(word.text in self._expected.words for word in words)
            score = heard.score if is_expected else heard.score + self._weights.unknown
            if score >= best_heard - self._neural_margin:
                likely.append((words, heard._replace(score=score)))
        if not likely:
            return []
        scores = yield from self._read([heard for _, heard in likely])
        return [(words, score) for (words, _), score in zip(likely, scores, strict=True)]

    def _heard(
        self, found: Sequence[Sequence[TimedWord]], phones: Sequence[float], attention: AttentionScores
    ) -> Parts[list[_Heard]]:
        """What everything but the neural language model says; `phones` are the log-likelihoods of their phones."""
        weights = self._weights
        texts = [[word.text for word in words] for words in found]
        tokens = [self._bundle.pieces.encode(" ".join(words)) for words in texts]
        pieces = [0.0] * len(tokens)
        if weights.pieces:
            pieces = ctc_log_likelihoods(self._pieces(), tokens).clamp(min=NO_ALIGNMENT).tolist()
            yield
        yield from attention.add(tokens)
        internal = [0.0] * len(tokens)
        if self._internal_lm is not None:
            yield from self._internal_lm.add(tokens)
            internal = self._internal_lm.totals(tokens).tolist()
        heard = []
        for words, phone_score, piece_score, attention_score, internal_score in zip(
            texts, phones, pieces, attention.totals(tokens).tolist(), internal, strict=True
        ):
            n_gram = self._tree.language_model.sentence(words)
            score = (
                weights.phones * phone_score
                + weights.language_model * n_gram
                + (weights.unigram * self._tree.language_model.without_context(words) if weights.unigram else 0.0)
                + weights.word * len(words)
                + weights.pieces * piece_score
                + weights.attention * attention_score
                + weights.internal_lm * internal_score
                + (self._hints.score(words) if self._hints else 0.0)
            )
            heard.append(_Heard(" ".join(words), score, n_gram))
        return heard

    def _beyond_ranking(self) -> Sequence[tuple[Sequence[TimedWord], float]]:
        return self._unread

    def _worth_reading(self, heard: Sequence[_Heard]) -> tuple[list[int], list[int]]:
        """Places of those that may win when the neural language model has read them, and of the others; likely ones
        first.

        The n-gram stands in for it: what is far below the best with that does not win with the other.
        """
        likely = [entry.score + self._weights.neural_lm * entry.n_gram for entry in heard]
        ranked = sorted(range(len(heard)), key=lambda index: -likely[index])
        least = likely[ranked[0]] - self._neural_margin
        may_win = sum(likely[index] >= least for index in ranked)
        return ranked[:may_win], ranked[may_win:]

    def _read(self, heard: Sequence[_Heard]) -> Parts[list[float]]:
        """The log-linear sums: the scores with what the neural language model says, where there is one."""
        if self._text is None or self._neural_lm is None:
            return [entry.score for entry in heard]
        tokens = [self._neural_lm[1].encode(entry.text) for entry in heard]
        yield from self._text.add(tokens)
        read = self._text.totals(tokens).tolist()
        return [entry.score + self._weights.neural_lm * said for entry, said in zip(heard, read, strict=True)]

    def _confidences(
        self, words: Sequence[TimedWord], n_best: Sequence[Sequence[TimedWord]], scores: Sequence[float]
    ) -> tuple[float, ...]:
        if self._word_confidence is None or self._attention is None:
            return super()._confidences(words, n_best, scores)
        phones, pieces = self._phones().numpy(), self._pieces().numpy()
        return self._word_confidence(words, n_best, scores, phones=phones, pieces=pieces, attention=self._attention)
