"""What is known of each word of a finished hypothesis, in numbers: what its confidence is computed from.

Dimensions: W words, U word pieces of the hypothesis, T4 and T8 encoder frames (40 and 80 ms), N phones, V word pieces
of the vocabulary, D model, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr_service.decoding.confidence import FEATURES, ConfidenceWeights, posteriors, word_confidences
from asr_service.decoding.hypothesis import TimedWord
from asr_service.decoding.language_model import WordLanguageModel
from asr_service.decoding.prefix_scores import AttentionScores
from asr_service.decoding.timing import WordGraph, best_path
from asr_service.parts import at_once
from asr_service.tokenizer import WordPieces

# An n-best list knows no more extreme odds than these, whatever its softmax says.
_LEAST_POSTERIOR = 1e-3
# Log-probabilities below this say no more than "not at all", and one of them must not outweigh all else.
_LEAST_LOG_PROB = -10.0


class WordFeatures:
    """Computes `confidence.FEATURES`; read-only, shared by all searches of a bundle with a language model."""

    def __init__(self, pieces: WordPieces, language_model: WordLanguageModel, *, posterior_scale: float) -> None:
        """`posterior_scale` flattens the scores of an n-best list before they become posteriors."""
        self._pieces, self._language_model, self._scale = pieces, language_model, posterior_scale

    def __call__(
        self,
        words: Sequence[TimedWord],
        n_best: Sequence[Sequence[TimedWord]],
        scores: Sequence[float],
        *,
        phones: NDArray[np.float32],
        pieces: NDArray[np.float32],
        attention: AttentionScores,
    ) -> NDArray[np.float64]:
        """(W, F) for the words of a hypothesis; `n_best` has `scores` and frames of 40 ms; W is at least 1.

        Of the utterance: `phones` (T4, N) and `pieces` (T8, V) are log-probabilities, `attention` the decoder's scores.
        """
        tokens = [self._pieces.encode(word.text) for word in words]
        least, following, mean = _attention(tokens, attention)
        columns = {
            "posterior": _log_odds(word_confidences(words, n_best, posteriors(scores, self._scale).tolist())),
            "entropy": _entropies(words, phones),
            "pieces": _alignment_scores(tokens, pieces),
            "attention": least,
            "following": following,
            "utterance": mean,
            "language_model": self._predicted(words),
            "letters": np.log([len(word.text) for word in words]),
        }
        return np.stack([columns[name] for name in FEATURES], axis=1)

    def _predicted(self, words: Sequence[TimedWord]) -> NDArray[np.float64]:
        """The n-gram's log-probability of each word after those before it, (W,)."""
        state, found = self._language_model.start(), []
        for word in words:
            state, log_prob = self._language_model.score(state, word.text)
            found.append(log_prob)
        return np.array(found)


class WordConfidence:
    """The chance that each word of a hypothesis is right."""

    def __init__(self, features: WordFeatures, weights: ConfidenceWeights) -> None:
        self._features, self._weights = features, weights

    def __call__(
        self,
        words: Sequence[TimedWord],
        n_best: Sequence[Sequence[TimedWord]],
        scores: Sequence[float],
        *,
        phones: NDArray[np.float32],
        pieces: NDArray[np.float32],
        attention: AttentionScores,
    ) -> tuple[float, ...]:
        """One number in [0, 1] a word; the arguments are those of `WordFeatures`."""
        features = self._features(words, n_best, scores, phones=phones, pieces=pieces, attention=attention)
        return tuple(self._weights.probabilities(features).tolist())


def _log_odds(probabilities: Sequence[float]) -> NDArray[np.float64]:
    clipped = np.clip(probabilities, _LEAST_POSTERIOR, 1.0 - _LEAST_POSTERIOR)
    odds: NDArray[np.float64] = np.log(clipped / (1.0 - clipped))
    return odds


def _attention(tokens: Sequence[Sequence[int]], scores: AttentionScores) -> tuple[NDArray[np.float64], ...]:
    """By the decoder's log-probabilities, each (W,): the least of each word's pieces, that of the piece after the word
    (or of the end), and the mean over all pieces of the utterance.
    """
    flat = [token for word in tokens for token in word]
    at_once(scores.add([flat]))  # nothing is left to do where these scores ranked the hypothesis
    log_probs = np.maximum(scores.of(flat).double().numpy(), _LEAST_LOG_PROB)
    ends = np.cumsum([len(word) for word in tokens])
    least = [log_probs[end - len(word) : end].min() for end, word in zip(ends, tokens, strict=True)]
    return np.array(least), log_probs[ends], np.full(len(tokens), log_probs[:-1].mean())


def _entropies(words: Sequence[TimedWord], log_probs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean entropy (nats) of the phone CTC in each word's frames, (W,)."""
    entropies = -(np.exp(log_probs) * log_probs).sum(axis=1, dtype=np.float64)
    spans = [(min(word.start_frame, len(entropies) - 1), word.end_frame) for word in words]  # never empty
    return np.array([entropies[start : max(end, start + 1)].mean() for start, end in spans])


def _alignment_scores(tokens: Sequence[Sequence[int]], log_probs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean log-probability of the word-piece CTC in each word's frames of the best alignment of all pieces, (W,)."""
    graph = WordGraph([[word] for word in tokens])
    path = best_path(log_probs, graph)
    if path is None:
        return np.full(len(tokens), _LEAST_LOG_PROB)
    states = np.array(path)
    scores = log_probs[np.arange(len(path)), np.array(graph.labels)[states]]
    word_of = np.array(graph.word_of)[states]
    return np.array([max(float(scores[word_of == word].mean()), _LEAST_LOG_PROB) for word in range(len(tokens))])
