"""The oracle of the CTC tests: sums over every alignment, one by one."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

from torch import Tensor


def labelling_probabilities(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """(T, V) log-probabilities → the probability of every labelling, blank 0."""
    frames, vocabulary = log_probs.shape
    probabilities: dict[tuple[int, ...], float] = defaultdict(float)
    rows = log_probs.tolist()
    for path in itertools.product(range(vocabulary), repeat=frames):
        probability = math.exp(sum(rows[t][token] for t, token in enumerate(path)))
        labels = tuple(token for t, token in enumerate(path) if token and (t == 0 or path[t - 1] != token))
        probabilities[labels] += probability
    return probabilities
