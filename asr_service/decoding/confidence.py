"""Word confidence: how much of the n-best list's weight has the word at its place (Wessel et al. 2001).

The hypotheses' scores become posteriors by a softmax; `scale` flattens it, for log-linear scores of whole utterances
are far too sure of themselves. It is tuned on dev.

Where all of an n-best list errs together these posteriors do not see it. A bundle may have weights of a logistic
regression over them and what the model's parts say of the word, fitted on dev by `training.calibrate` (for the approach
see Jiang 2005, "Confidence measures for speech recognition: a survey").
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True)
class ConfidenceWeights:
    """p(word is right) = 1 / (1 + exp(-z)), z the intercept and the weighted sum of the word's features.

    Attributes:
        posterior: log odds of the word's posterior in the n-best list.
        entropy: mean entropy of the phone CTC in its frames, in nats.
        pieces: mean log-probability of its word pieces in their frames, under the word-piece CTC.
        attention: log-probability of its least likely piece under the decoder.
        following: the same of the piece that follows it: an error throws the decoder off its track.
        utterance: mean over all pieces of the hypothesis: speakers and rooms differ.
        language_model: log-probability under the n-gram.
        letters: logarithm of how many it has: short words are mistaken for each other.
    """

    intercept: float = 0.0
    posterior: float = 0.0
    entropy: float = 0.0
    pieces: float = 0.0
    attention: float = 0.0
    following: float = 0.0
    utterance: float = 0.0
    language_model: float = 0.0
    letters: float = 0.0

    def __post_init__(self) -> None:
        for name in ("intercept", *FEATURES):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name} is {value!r}, must be a finite number")

    def probabilities(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(W, F) features in the order of `FEATURES` → (W,) probabilities."""
        sums = self.intercept + features @ np.array([getattr(self, name) for name in FEATURES])
        # Beyond this the answer is 0 or 1 to all digits, and the exponential might overflow.
        answer: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(sums, -50.0, 50.0)))
        return answer


FEATURES = tuple(item.name for item in dataclasses.fields(ConfidenceWeights) if item.name != "intercept")


@dataclass(frozen=True, slots=True)
class ConfidenceModels:
    """Weights by mode; None: the n-best list's posteriors as they are."""

    accurate: ConfidenceWeights | None = None
    streaming: ConfidenceWeights | None = None

    def __post_init__(self) -> None:
        """Raises ValueError that names a weight that is unknown or no number."""
        for mode in ("accurate", "streaming"):
            value: Any = getattr(self, mode)
            if value is None or isinstance(value, ConfidenceWeights):
                continue
            if not isinstance(value, Mapping):
                raise ValueError(f"{mode} is {value!r}, must be a table")
            if unknown := sorted(set(value) - {"intercept", *FEATURES}):
                raise ValueError(f"{mode}.{unknown[0]} is not known; known are intercept, {', '.join(FEATURES)}")
            try:
                weights = ConfidenceWeights(**value)
            except ValueError as error:
                raise ValueError(f"{mode}.{error}") from None
            object.__setattr__(self, mode, weights)
