"""The CTC forward algorithm (Graves et al. 2006, section 4.1) for many label sequences over one utterance.

Dimensions: N sequences, U labels, T frames, V labels of the vocabulary.

In probabilities, not their logarithms: then a frame is additions and products only. Double precision holds what is at
least e⁻⁷⁰⁰, and what gets lost below that is nothing beside a sequence whose own probability is at least `LEAST`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr_service.decoding.compiled import compiled

# Natural logarithm. Sequences below it have to be summed in logarithms.
LEAST = -600.0


def padded_labels(sequences: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """N label sequences, N ≥ 1 → (N, U) padded with 0, U ≥ 1, and their (N,) lengths."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    labels = np.zeros((len(sequences), max(1, int(lengths.max()))), dtype=np.int64)
    for row, sequence in zip(labels, sequences, strict=True):
        row[: len(sequence)] = sequence
    return labels, lengths


@compiled
def ctc_probabilities(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(N,) of N sequences, padded to `labels` (N, U), under one utterance's (T, V), T ≥ 1; blank is label 0."""
    frames, count = probabilities.shape[0], labels.shape[0]
    found = np.zeros(count)
    for n in range(count):
        length = lengths[n]
        tokens = labels[n, :length]
        # State i+1 of `label`: the path stands on label i; state 0 stands for what lies before the first. State i of
        # `blank`: on the blank before label i.
        label, label_next = np.zeros(length + 1), np.zeros(length + 1)
        blank, blank_next = np.zeros(length + 1), np.zeros(length + 1)
        direct = np.ones(length)  # 0 where a label repeats the one before, and needs a blank between
        for i in range(1, length):
            if tokens[i] == tokens[i - 1]:
                direct[i] = 0.0
        blank[0] = probabilities[0, 0]
        if length:
            label[1] = probabilities[0, tokens[0]]
        for t in range(1, frames):
            row = probabilities[t]
            for i in range(length):
                label_next[i + 1] = (label[i + 1] + blank[i] + direct[i] * label[i]) * row[tokens[i]]
            for i in range(length + 1):
                blank_next[i] = (blank[i] + label[i]) * row[0]
            label, label_next = label_next, label
            blank, blank_next = blank_next, blank
        found[n] = blank[length] + label[length]
    return found
