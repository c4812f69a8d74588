"""Whether confidences mean what they say: of words with 0.8, four in five should be right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_service.evaluation.result import Evaluation

BINS = 15


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Words of similar confidence: their mean confidence, and the share of them that are right."""

    words: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How confidences and errors go together.

    Attributes:
        words: that were judged; deleted words have no confidence.
        left_out: words of utterances where normalisation splits, joins or drops words, so that their confidences can no
            longer be given to them.
        ece: expected calibration error (Naeini et al., AAAI 2015): mean of |accuracy − confidence| over the bins,
            weighted by their words; bins of equal mass, because confidences crowd near 1.
        auc: chance that a right word has a higher confidence than a wrong one; None where all are right or all wrong.
        bins: the reliability table, by rising confidence.
    """

    words: int
    left_out: int
    ece: float
    auc: float | None
    bins: tuple[ReliabilityBin, ...]


def calibration(evaluation: Evaluation, *, bins: int = BINS) -> Calibration | None:
    """Judge the confidence of every hypothesis word by the alignment; None where the system gives none."""
    confidences: list[float] = []
    right: list[bool] = []
    left_out = 0
    for row in evaluation.utterances:
        heard = [operation == "C" for operation in row.alignment if operation != "D"]
        if len(row.output.words) == len(heard):
            confidences += [word.confidence for word in row.output.words]
            right += heard
        else:
            left_out += len(row.output.words)
    if not confidences:
        return None
    return judge(np.asarray(confidences), np.asarray(right), bins=bins, left_out=left_out)


def judge(
    confidences: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = BINS, left_out: int = 0
) -> Calibration:
    """Judge (W,) confidences of words of which (W,) are right; W is at least 1."""
    table = _reliability(confidences, right, bins)
    ece = sum(one.words * abs(one.accuracy - one.confidence) for one in table) / len(confidences)
    return Calibration(len(confidences), left_out, ece, _auc(confidences, right), table)


def _reliability(values: NDArray[np.float64], truth: NDArray[np.bool_], bins: int) -> tuple[ReliabilityBin, ...]:
    order = np.argsort(values, kind="stable")
    return tuple(
        ReliabilityBin(len(part), float(values[part].mean()), float(truth[part].mean()))
        for part in np.array_split(order, bins)
        if len(part)
    )


def _auc(values: NDArray[np.float64], truth: NDArray[np.bool_]) -> float | None:
    """Area under the receiver operating characteristic, from the rank sum (Mann and Whitney); ties count half."""
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return None
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))
