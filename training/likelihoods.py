"""What a model says of whole hypotheses, all at once: the search that serves asks part by part, and for best paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr_service.decoding.prefix_scores import PrefixScores
from asr_service.decoding.timing import WordGraph, label_log_probs
from asr_service.model.tree_cache import TreeCache
from asr_service.parts import at_once

Cache = TypeVar("Cache", bound=TreeCache)


def log_likelihoods(scores: PrefixScores[Cache], sequences: Sequence[Sequence[int]]) -> Tensor:
    """Log-likelihoods (N,) of N token sequences, each with its end token."""
    at_once(scores.add(sequences))
    return scores.totals(sequences)


def words_log_likelihood(log_probs: NDArray[np.float32], graph: WordGraph) -> float:
    """Log-probability of all alignments of all pronunciations of the graph's words to the phone CTC's log-probabilities
    (T, V); -inf where there is none.
    """
    emissions = label_log_probs(log_probs, graph)
    scores = np.full(len(graph.labels) + 1, -np.inf)
    if log_probs.shape[0]:
        scores[graph.first] = emissions[0, graph.first]
    for frame in range(1, log_probs.shape[0]):
        scores[:-1] = np.logaddexp.reduce(scores[graph.predecessors], axis=1) + emissions[frame]
    return float(np.logaddexp.reduce(scores[graph.last]))
