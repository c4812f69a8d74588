"""Word confidence: how much of the n-best list's weight has the word at its place (Wessel et al. 2001).

The hypotheses' scores become posteriors by a softmax; `scale` flattens it, for log-linear scores of whole utterances
are far too sure of themselves. It is tuned on dev.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr_service.decoding.hypothesis import TimedWord


def posteriors(scores: Sequence[float], scale: float = 1.0) -> NDArray[np.float64]:
    """Softmax of `scale` x log scores; sums to 1."""
    values = scale * (np.array(scores, dtype=np.float64) - max(scores))
    weights: NDArray[np.float64] = np.exp(values)
    weights /= weights.sum()
    return weights


def word_confidences(
    words: Sequence[TimedWord], n_best: Sequence[Sequence[TimedWord]], weights: Sequence[float]
) -> tuple[float, ...]:
    """For each of `words` the total weight, in [0, 1], of those n-best entries that have it in overlapping frames.

    `weights[i]` is the posterior of `n_best[i]`.
    """
    found = []
    for word in words:
        total = sum(
            weight
            for weight, other in zip(weights, n_best, strict=True)
            if any(
                candidate.text == word.text
                and candidate.start_frame < word.end_frame
                and word.start_frame < candidate.end_frame
                for candidate in other
            )
        )
        found.append(min(1.0, max(0.0, float(total))))
    return tuple(found)
