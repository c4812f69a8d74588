"""The search of one utterance, from encoded frames to ranked hypotheses with times and confidences.

Dimensions: T4 and T8 encoder frames (40 and 80 ms), N phones, V word pieces, D model.

Live, the lexicon beam over the phone CTC goes along frame by frame. At the end of an utterance its n-best list is
ranked once more with what the word-piece CTC and the decoder say of each hypothesis. A word that all hypotheses of the
beam share is stable: every later hypothesis, and so the final, starts with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from asr_service.config import EngineSettings
from asr_service.decoding.config import DecodingConfig
from asr_service.decoding.hypothesis import BeamHypothesis, TimedWord
from asr_service.decoding.joint_beam import joint_beam_search
from asr_service.decoding.lexicon_beam import LexiconBeam
from asr_service.decoding.pronunciation_tree import PronunciationTree
from asr_service.decoding.rescoring import attention_log_likelihoods, ctc_log_likelihoods
from asr_service.engine.interface import StreamOptions
from asr_service.engine.runner import Encoded
from asr_service.model.bundle import Bundle
from asr_service.types import Hypothesis, Mode, Word

PHONE_FRAME_S = 0.04
PIECE_FRAME_S = 0.08
# A word that ended this close to the end of what was encoded is news to the endpointer.
NEW_TOKEN_S = 0.16


class SearchSpace:
    """What all searches of a model share: the prefix tree, the n-gram, the settings."""

    def __init__(self, bundle: Bundle, settings: EngineSettings) -> None:
        """Raises BundleError when the language model cannot be read, or a search setting is wrong."""
        self.bundle = bundle
        self.config = DecodingConfig.from_dict(bundle.decoding)
        self.max_alternatives = settings.max_alternatives
        self.tree: PronunciationTree | None = None
        if bundle.lexicon is not None and bundle.lm_path is not None:
            self.tree = PronunciationTree(bundle.lexicon, bundle.lm_path)

    def new_search(self, options: StreamOptions) -> UtteranceSearch:
        if self.tree is None:
            return JointSearch(self, options)
        return LexiconSearch(self, options, self.tree)


class UtteranceSearch:
    """One utterance at a time; `reset` begins the next."""

    def __init__(self, space: SearchSpace, options: StreamOptions) -> None:
        self._space = space
        self._limit = max(1, min(options.max_alternatives, space.max_alternatives))
        self._encoded: list[Encoded] = []

    def step(self, encoded: Encoded) -> bool:
        """Search on through the next stretch; True when the best hypothesis grew near its end."""
        self._encoded.append(encoded)
        return False

    @property
    def has_words(self) -> bool:
        return False

    def partial(self, *, offset_s: float) -> tuple[Hypothesis, int]:
        """The best hypothesis so far, in stream time, and how many of its words are stable."""
        raise NotImplementedError

    def final(self, *, offset_s: float) -> tuple[Hypothesis, ...]:
        """Ranked alternatives, best first; none when there are no words."""
        raise NotImplementedError

    def reset(self) -> None:
        self._encoded = []

    def _pieces(self) -> torch.Tensor:
        """(T8, V) of the utterance so far."""
        return torch.from_numpy(np.concatenate([part.pieces for part in self._encoded]))

    def _hidden(self) -> torch.Tensor:
        """(T8, D) of the utterance so far."""
        return torch.cat([part.hidden for part in self._encoded])


class LexiconSearch(UtteranceSearch):
    """Phones through the pronunciation tree with the n-gram, then rescoring."""

    def __init__(self, space: SearchSpace, options: StreamOptions, tree: PronunciationTree) -> None:
        super().__init__(space, options)
        accurate = options.mode is Mode.ACCURATE
        self._beam = LexiconBeam(tree, space.config.accurate if accurate else space.config.streaming)
        self._best: BeamHypothesis | None = None
        self._stable = 0

    def step(self, encoded: Encoded) -> bool:
        super().step(encoded)
        self._beam.step(encoded.phones)
        previous = len(self._best.words) if self._best is not None else 0
        self._best = self._beam.best()
        grew = len(self._best.words) > previous
        return grew and (self._beam.frames - self._best.words[-1].end_frame) * PHONE_FRAME_S <= NEW_TOKEN_S

    @property
    def has_words(self) -> bool:
        return self._best is not None and bool(self._best.words)

    def partial(self, *, offset_s: float) -> tuple[Hypothesis, int]:
        assert self._best is not None
        alive = [hypothesis.texts for hypothesis in self._beam.beam()]
        self._stable = max(self._stable, shared_words(alive))
        words = tuple(_word(word, offset_s, 0.0) for word in self._best.words)
        return Hypothesis(words), min(self._stable, len(words))

    def final(self, *, offset_s: float) -> tuple[Hypothesis, ...]:
        found = [h for h in self._beam.finish(self._space.config.n_best) if h.words]
        if not found:
            return ()
        scores = self._rescore(found)
        order = sorted(range(len(found)), key=lambda i: -scores[i])
        ranked = [found[i] for i in order]
        posteriors = _softmax([scores[i] for i in order])
        return tuple(
            _hypothesis(ranked, posteriors, place, offset_s, scores[order[place]])
            for place in range(min(self._limit, len(ranked)))
        )

    @torch.inference_mode()
    def _rescore(self, found: Sequence[BeamHypothesis]) -> list[float]:
        weights, bundle = self._space.config.rescoring, self._space.bundle
        tokens = [bundle.pieces.encode(" ".join(hypothesis.texts)) for hypothesis in found]
        pieces = ctc_log_likelihoods(self._pieces(), tokens).tolist()
        attention = attention_log_likelihoods(bundle.model.decoder, self._hidden(), tokens).tolist()
        return [
            weights.phones * hypothesis.acoustic_score
            + weights.language_model * hypothesis.lm_score
            + weights.word * len(hypothesis.words)
            # A hypothesis with more pieces than frames has no alignment to them: as bad as can be, yet finite.
            + weights.pieces * max(piece_score, -1e4)
            + weights.attention * attention_score
            for hypothesis, piece_score, attention_score in zip(found, pieces, attention, strict=True)
        ]

    def reset(self) -> None:
        super().reset()
        self._beam.begin()
        self._best, self._stable = None, 0


class JointSearch(UtteranceSearch):
    """Joint CTC/attention beam over word pieces, for a model without phones or without a language model."""

    @torch.inference_mode()
    def final(self, *, offset_s: float) -> tuple[Hypothesis, ...]:
        if not self._encoded:
            return ()
        bundle, pieces = self._space.bundle, self._pieces()
        found = joint_beam_search(
            bundle.model.decoder,
            self._hidden(),
            pieces,
            bos_id=bundle.pieces.bos_id,
            eos_id=bundle.pieces.eos_id,
            options=self._space.config.joint,
        )
        span_s = len(pieces) * PIECE_FRAME_S
        texts = [bundle.pieces.decode(hypothesis.token_ids).split() for hypothesis in found]
        posteriors = _softmax([hypothesis.score for hypothesis in found])
        hypotheses = []
        for hypothesis, words, posterior in zip(found, texts, posteriors, strict=True):
            width_s = span_s / max(1, len(words))
            placed = tuple(
                Word(text, offset_s + i * width_s, offset_s + (i + 1) * width_s, posterior)
                for i, text in enumerate(words)
            )
            if placed:
                hypotheses.append(Hypothesis(placed, hypothesis.score, posterior))
        return tuple(hypotheses[: self._limit])


def shared_words(texts: Sequence[Sequence[str]]) -> int:
    """How many first words all of these sequences share."""
    if not texts:
        return 0
    shortest, *_ = sorted(texts, key=len)
    return next((i for i, word in enumerate(shortest) if any(text[i] != word for text in texts)), len(shortest))


def _softmax(scores: Sequence[float]) -> list[float]:
    values = np.exp(np.array(scores) - max(scores))
    return [float(value) for value in values / values.sum()]


def _word(word: TimedWord, offset_s: float, confidence: float) -> Word:
    start_s = offset_s + word.start_frame * PHONE_FRAME_S
    return Word(word.text, start_s, offset_s + word.end_frame * PHONE_FRAME_S, confidence)


def _hypothesis(
    ranked: Sequence[BeamHypothesis], posteriors: Sequence[float], place: int, offset_s: float, score: float
) -> Hypothesis:
    """The hypothesis with word confidences: the share of the n-best list's weight that has the word there."""
    words = []
    for word in ranked[place].words:
        agreeing = sum(
            posterior
            for other, posterior in zip(ranked, posteriors, strict=True)
            if any(
                w.text == word.text and w.start_frame < word.end_frame and word.start_frame < w.end_frame
                for w in other.words
            )
        )
        words.append(_word(word, offset_s, min(1.0, agreeing)))
    return Hypothesis(tuple(words), score, float(np.mean([word.confidence for word in words])))
