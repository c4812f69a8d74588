"""The weights of the final ranking: what hypotheses are ranked by, and the weights that make the fewest errors.

Dimensions: L utterances, n candidates of one, F features.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# The features of a hypothesis, and what their weights are called in a bundle's `decoding.rescoring`.
IN_CONFIG = {
    "phones": "phones",
    "lm": "language_model",
    "unigram": "unigram",
    "neural": "neural_lm",
    "words": "word",
    "pieces": "pieces",
    "attention": "attention",
    "internal": "internal_lm",
    "unknown": "unknown",
}
FEATURES = tuple(IN_CONFIG)
# Of the scores, in nats, where the weights of the ranking are tuned: near ties are shared out.
SMOOTHING = 0.5


def ranked_errors(lists: Sequence[tuple[np.ndarray, np.ndarray]], weights: np.ndarray) -> int:
    """Errors of the best candidates; `lists` as `ranking_lists` makes them."""
    return int(sum(errors[int(np.argmax(features @ weights))] for features, errors in lists))


@dataclass(frozen=True, slots=True)
class Lists:
    """Candidates of L utterances, padded: features (L, n, F), errors (L, n), and whether one is there, (L, n)."""

    features: np.ndarray
    errors: np.ndarray
    present: np.ndarray

    @classmethod
    def padded(cls, lists: Sequence[tuple[np.ndarray, np.ndarray]]) -> Lists:
        """Of lists as `ranking_lists` makes them."""
        longest = max(len(errors) for _, errors in lists)
        padded = cls(
            np.zeros((len(lists), longest, len(FEATURES))),
            np.zeros((len(lists), longest)),
            np.zeros((len(lists), longest), dtype=bool),
        )
        for row, (features, errors) in enumerate(lists):
            padded.features[row, : len(errors)] = features
            padded.errors[row, : len(errors)] = errors
            padded.present[row, : len(errors)] = True
        return padded


def expected_errors(lists: Lists, weights: np.ndarray) -> float:
    """Errors when each candidate is chosen as often as its score is likely: Σ softmax(score / SMOOTHING)·errors.

    Smooth in the weights, where the count of the best candidates' errors jumps, and so less a matter of a few
    utterances' luck (Och 2003, "Minimum error rate training in statistical machine translation", section 3).
    """
    scores = np.where(lists.present, lists.features @ weights, -np.inf) / SMOOTHING
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return float((shares / shares.sum(axis=1, keepdims=True) * lists.errors).sum())


def tune_ranking(
    lists: Sequence[tuple[np.ndarray, np.ndarray]], free: Sequence[str], *, restarts: int = 6, seed: int = 0
) -> tuple[dict[str, float], int]:
    """Coordinate search for the weights `free`, the others 0 and that of the phones 1; fewest expected errors.

    Returns the weights and how many errors the best candidates have with them.
    """
    grids = {
        "lm": np.arange(0.0, 2.01, 0.1),
        "unigram": np.arange(-10, 1) / 10,
        "neural": np.arange(0.0, 2.01, 0.1),
        "words": np.arange(-6.0, 4.01, 0.25),
        "pieces": np.arange(0.0, 2.01, 0.1),
        "attention": np.arange(0.0, 2.01, 0.1),
        "internal": np.arange(-10, 1) / 10,
        "unknown": np.array([-40.0, -20.0, -12.0, -8.0, -4.0, 0.0]),
    }
    padded = Lists.padded(lists)
    rng = random.Random(seed)
    best: tuple[float, tuple[float, ...]] | None = None
    for _ in range(restarts):
        weights = np.array([float(rng.choice(grids.get(name, [0.0]))) if name in free else 0.0 for name in FEATURES])
        weights[FEATURES.index("phones")] = 1.0 if "phones" in free else 0.0
        least, improved = expected_errors(padded, weights), True
        while improved:
            improved = False
            for name in (name for name in grids if name in free):
                trials = np.repeat(weights[np.newaxis], len(grids[name]), axis=0)
                trials[:, FEATURES.index(name)] = grids[name]
                counts = [expected_errors(padded, trial) for trial in trials]
                if min(counts) < least:
                    weights, least, improved = trials[int(np.argmin(counts))], min(counts), True
        if best is None or (least, tuple(weights)) < best:
            best = (least, tuple(weights.tolist()))
    assert best is not None
    return dict(zip(FEATURES, best[1], strict=True)), ranked_errors(lists, np.array(best[1]))


def worth_reading(features: np.ndarray, weights: np.ndarray, margin: float) -> np.ndarray:
    """Which of (n, F) candidates the neural language model reads at a margin (see `DecodingConfig`): (n,) of bool."""
    neural, n_gram = FEATURES.index("neural"), FEATURES.index("lm")
    stand_in = weights.copy()
    stand_in[n_gram] += stand_in[neural]
    stand_in[neural] = 0.0
    likely = features @ stand_in
    return np.asarray(likely >= likely.max() - margin)
