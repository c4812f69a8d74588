"""Best-path CTC decoding (Graves et al. 2006, section 3.2): the likeliest labels, repeats and blanks dropped."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class GreedyToken:
    """A token and the frames [start_frame, end_frame) in which it was the likeliest label."""

    token_id: int
    start_frame: int
    end_frame: int


def greedy(log_probs: NDArray[np.float32], blank_id: int = 0) -> tuple[GreedyToken, ...]:
    """Tokens of (T, V) log-probabilities."""
    tokens, frame = [], 0
    for label, run in itertools.groupby(log_probs.argmax(axis=1).tolist()):
        start, frame = frame, frame + sum(1 for _ in run)
        if label != blank_id:
            tokens.append(GreedyToken(label, start, frame))
    return tuple(tokens)
