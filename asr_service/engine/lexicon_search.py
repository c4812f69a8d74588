"""Phones through the pronunciation tree with the word n-gram; then the n-best list is ranked once more.

While somebody speaks the lexicon beam goes along frame by frame. At the end of the utterance the word-piece CTC and the
decoder say what they think of each hypothesis: they see the same audio in other units, and err elsewhere. A word that
the lexicon lacks can come from the word-piece CTC's spelling alone, at the end of the utterance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from asr_service.decoding.hinted_tree import HintedTree
from asr_service.decoding.hypothesis import BeamHypothesis, TimedWord
from asr_service.decoding.lexicon_beam import LexiconBeam, LexiconBeamOptions
from asr_service.decoding.open_vocabulary import ExpectedSpellings, spelled_words, with_spelled_words
from asr_service.decoding.prefix_scores import AttentionScores, PrefixScores, attention_scores
from asr_service.decoding.pronunciation_tree import PronunciationTree
from asr_service.decoding.rescoring import NO_ALIGNMENT, RescoringWeights, ctc_log_likelihoods
from asr_service.decoding.word_features import WordConfidence
from asr_service.engine.runner import Encoded
from asr_service.engine.search import UtteranceSearch
from asr_service.model.bundle import Bundle
from asr_service.model.tree_cache import TreeCache
from asr_service.parts import Parts


class LexiconSearch(UtteranceSearch):
    """For a bundle with phones, lexicon and language model."""

    frame_s = 0.04

    def __init__(
        self,
        bundle: Bundle,
        tree: PronunciationTree,
        options: LexiconBeamOptions,
        weights: RescoringWeights,
        *,
        n_best: int,
        limit: int,
        confidence_scale: float,
        agreement: int | None,
        hold_back_s: float = 0.0,
        word_confidence: WordConfidence | None = None,
        hinted: HintedTree | None = None,
    ) -> None:
        """`word_confidence`: without it the n-best list's posteriors are the confidences. `hinted`: the tree for what
        the stream expects to hear, made for the `lm_weight` of `options`.
        """
        super().__init__(
            limit=limit,
            confidence_scale=confidence_scale,
            agreement=agreement,
            hold_back_s=hold_back_s,
        )
        self._word_confidence = word_confidence
        # Of the utterance, from its ranking on.
        self._attention: AttentionScores | None = None
        self._text: PrefixScores[TreeCache] | None = None
        self._bundle, self._weights, self._n_best = bundle, weights, n_best
        self._tree = tree
        self._hints = hinted.hints if hinted is not None else None
        unheard = {word for phrase in hinted.unheard for word in phrase} - tree.known if hinted is not None else ()
        self._expected = ExpectedSpellings(word for word in unheard if not bundle.pieces.unknown_characters(word))
        self._beam = LexiconBeam(tree, options, hinted)

    def reset(self) -> None:
        super().reset()
        self._attention = self._text = None
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
        decoder, neural_lm = self._bundle.model.decoder, self._bundle.neural_lm
        self._attention = attention_scores(decoder, self._hidden())
        if neural_lm is not None and self._weights.neural_lm:
            self._text = PrefixScores(neural_lm[0], neural_lm[0].start_tree())
        pronounced = ctc_log_likelihoods(self._phones(), [hypothesis.phone_ids for hypothesis in found])
        phones = pronounced.clamp(min=NO_ALIGNMENT).tolist()
        scores = yield from self._scores([hypothesis.words for hypothesis in found], phones, self._attention)
        ranked: list[tuple[Sequence[TimedWord], float]] = [
            (hypothesis.words, score) for hypothesis, score in zip(found, scores, strict=True)
        ]
        best, fit, _ = max(zip(found, phones, scores, strict=True), key=lambda entry: entry[2])
        ranked += yield from self._open(best, fit, self._attention)
        return sorted(ranked, key=lambda entry: -entry[1])

    def _open(
        self, best: BeamHypothesis, phones: float, attention: AttentionScores
    ) -> Parts[list[tuple[Sequence[TimedWord], float]]]:
        """`best` with spelled words that the lexicon lacks, scored.

        Nobody knows how they are pronounced: their phones are taken to fit as well as those of what they replace.
        """
        spelled = spelled_words(self._bundle.pieces, self._pieces().numpy())
        opened = with_spelled_words(best.words, [*spelled, *self._expected.near(spelled)], self._tree.known)
        if not opened:
            return []
        scores = yield from self._scores(opened, [phones] * len(opened), attention)
        # What the stream expects is no unknown word to it.
        return [
            (
                words,
                score if any(word.text in self._expected.words for word in words) else score + self._weights.unknown,
            )
            for words, score in zip(opened, scores, strict=True)
        ]

    def _scores(
        self, found: Sequence[Sequence[TimedWord]], phones: Sequence[float], attention: AttentionScores
    ) -> Parts[list[float]]:
        """The log-linear sum for each word sequence; `phones` are the log-likelihoods of their phones."""
        weights = self._weights
        texts = [[word.text for word in words] for words in found]
        tokens = [self._bundle.pieces.encode(" ".join(words)) for words in texts]
        pieces = [0.0] * len(tokens)
        if weights.pieces:
            pieces = ctc_log_likelihoods(self._pieces(), tokens).clamp(min=NO_ALIGNMENT).tolist()
            yield
        yield from attention.add(tokens)
        read = yield from self._read(texts)
        boosts = [self._hints.score(words) if self._hints else 0.0 for words in texts]
        return [
            weights.phones * phone_score
            + weights.language_model * self._tree.language_model.sentence(words)
            + weights.neural_lm * text_score
            + weights.word * len(words)
            + weights.pieces * piece_score
            + weights.attention * attention_score
            + boost
            for words, phone_score, piece_score, attention_score, text_score, boost in zip(
                texts, phones, pieces, attention.totals(tokens).tolist(), read, boosts, strict=True
            )
        ]

    def _read(self, texts: Sequence[Sequence[str]]) -> Parts[list[float]]:
        """Log-probabilities under the neural language model; zeros where there is none."""
        if self._text is None or self._bundle.neural_lm is None:
            return [0.0] * len(texts)
        tokens = [self._bundle.neural_lm[1].encode(" ".join(words)) for words in texts]
        yield from self._text.add(tokens)
        log_probs: list[float] = self._text.totals(tokens).tolist()
        return log_probs

    def _confidences(
        self, words: Sequence[TimedWord], n_best: Sequence[Sequence[TimedWord]], scores: Sequence[float]
    ) -> tuple[float, ...]:
        if self._word_confidence is None or self._attention is None:
            return super()._confidences(words, n_best, scores)
        phones, pieces = self._phones().numpy(), self._pieces().numpy()
        return self._word_confidence(words, n_best, scores, phones=phones, pieces=pieces, attention=self._attention)
