"""Logistic regression of whether words are right, by Newton's method; weights for a bundle's word confidences.

Dimensions: W words, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_service.decoding.confidence import FEATURES, ConfidenceWeights

# Precision of the prior that a standardised feature's weight is 0: enough to decide where the words cannot.
RIDGE = 1.0
_MAX_STEPS = 100
_TOLERANCE = 1e-9


class CannotJudge(ValueError):
    """No speaker's words can be judged by those of all others."""


def fit(features: NDArray[np.float64], right: NDArray[np.bool_], names: Sequence[str] = FEATURES) -> ConfidenceWeights:
    """The weights of `names`, the others 0, that make (W,) `right` likeliest; `features` is (W, F) of all `FEATURES`.

    Deterministic. Raises ValueError where there is no word, all are right, or none is: there is nothing to tell apart.
    """
    if right.all() or not right.any():
        case = f"{'all' if right.any() else 'none'} of the {len(right)} words are right" if len(right) else "no words"
        raise ValueError(f"{case}: no confidence can be fitted")
    used = features[:, [FEATURES.index(name) for name in names]]
    mean, deviation = used.mean(axis=0), used.std(axis=0)
    deviation[deviation == 0.0] = 1.0
    inputs = np.concatenate([np.ones((len(used), 1)), (used - mean) / deviation], axis=1)
    penalty = np.full(inputs.shape[1], RIDGE)
    penalty[0] = 0.0
    weights = np.zeros(inputs.shape[1])
    loss = _loss(weights, inputs, right, penalty)
    for _ in range(_MAX_STEPS):
        chances = _logistic(inputs @ weights)
        gradient = inputs.T @ (chances - right) + penalty * weights
        curvature = (inputs * (chances * (1.0 - chances))[:, None]).T @ inputs + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        # The loss is convex: half of a step that goes too far does not.
        while (shorter := _loss(weights - step, inputs, right, penalty)) > loss + _TOLERANCE:
            step /= 2.0
        weights, loss = weights - step, shorter
        if np.abs(step).max() < _TOLERANCE:
            break
    slopes = weights[1:] / deviation
    return ConfidenceWeights(
        intercept=_short(weights[0] - slopes @ mean),
        **{name: _short(slope) for name, slope in zip(names, slopes, strict=True)},
    )


def cross_fitted(
    features: NDArray[np.float64],
    right: NDArray[np.bool_],
    speakers: NDArray[Any],
    names: Sequence[str] = FEATURES,
) -> NDArray[np.float64]:
    """(W,) confidences, those of each of the `speakers`' words by weights fitted on all other speakers'.

    Raises CannotJudge where there is one speaker, or where some speaker's words are the only right or wrong ones.
    """
    answer = np.zeros(len(right))
    names_of_speakers = np.unique(speakers)
    if len(names_of_speakers) < 2:
        raise CannotJudge(f"all {len(right)} words are of one speaker, {str(speakers[0])!r}: two or more are needed")
    for speaker in names_of_speakers:
        own = speakers == speaker
        if len(set(right[~own].tolist())) < 2:
            what = "right" if right[~own].all() else "wrong"
            raise CannotJudge(f"all {(~own).sum()} words but those of speaker {str(speaker)!r} are {what}")
        answer[own] = fit(features[~own], right[~own], names).probabilities(features[own])
    return answer


def log_loss(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Mean negative log-likelihood a word; confidences of 0 or 1 that are wrong count as one in a million."""
    given = np.clip(np.where(right, confidences, 1.0 - confidences), 1e-6, 1.0)
    return float(-np.log(given).mean())


def _logistic(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    answer: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(sums, -50.0, 50.0)))
    return answer


def _loss(
    weights: NDArray[np.float64], inputs: NDArray[np.float64], right: NDArray[np.bool_], penalty: NDArray[np.float64]
) -> float:
    sums = inputs @ weights
    return float(np.logaddexp(0.0, np.where(right, -sums, sums)).sum() + 0.5 * (penalty * weights**2).sum())


def _short(value: float) -> float:
    """Five significant digits: a config is read by people."""
    return float(f"{value:.5g}")
