"""Phones through the pronunciation tree with the word n-gram; then the n-best list is ranked once more.

While somebody speaks the lexicon beam goes along frame by frame. At the end of the utterance the word-piece CTC and the
decoder say what they think of each hypothesis: they see the same audio in other units, and err elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from asr_service.decoding.hypothesis import BeamHypothesis, TimedWord
from asr_service.decoding.lexicon_beam import LexiconBeam, LexiconBeamOptions
from asr_service.decoding.pronunciation_tree import PronunciationTree
from asr_service.decoding.rescoring import RescoringWeights, attention_log_likelihoods, ctc_log_likelihoods
from asr_service.engine.runner import Encoded
from asr_service.engine.search import UtteranceSearch
from asr_service.model.bundle import Bundle

# A hypothesis with more pieces than frames has no alignment to them: as bad as can be, yet finite.
NO_ALIGNMENT = -1e4


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
    ) -> None:
        super().__init__(limit=limit, confidence_scale=confidence_scale, agreement=agreement)
        self._bundle, self._weights, self._n_best = bundle, weights, n_best
        self._tree = tree
        self._beam = LexiconBeam(tree, options)

    def reset(self) -> None:
        super().reset()
        self._beam.begin()

    def _advance(self, encoded: Encoded) -> tuple[int, Sequence[TimedWord]]:
        self._beam.step(encoded.phones)
        return self._beam.frames, self._beam.best().words

    def _shared(self) -> int:
        return self._beam.shared_words()

    def _ranked(self) -> list[tuple[Sequence[TimedWord], float]]:
        found = self._beam.finish(self._n_best)
        scored = zip(found, self._scores(found), strict=True)
        return [(hypothesis.words, score) for hypothesis, score in sorted(scored, key=lambda pair: -pair[1])]

    @torch.inference_mode()
    def _scores(self, found: Sequence[BeamHypothesis]) -> list[float]:
        if not found:
            return []
        weights = self._weights
        tokens = [self._bundle.pieces.encode(" ".join(hypothesis.texts)) for hypothesis in found]
        phone_ids = [hypothesis.phone_ids for hypothesis in found]
        phones = ctc_log_likelihoods(self._phones(), phone_ids).clamp(min=NO_ALIGNMENT).tolist()
        pieces = ctc_log_likelihoods(self._pieces(), tokens).clamp(min=NO_ALIGNMENT).tolist()
        attention = attention_log_likelihoods(self._bundle.model.decoder, self._hidden(), tokens).tolist()
        return [
            weights.phones * phone_score
            + weights.language_model * self._tree.language_model.sentence(hypothesis.texts)
            + weights.word * len(hypothesis.words)
            + weights.pieces * piece_score
            + weights.attention * attention_score
            for hypothesis, phone_score, piece_score, attention_score in zip(
                found, phones, pieces, attention, strict=True
            )
        ]
