"""Best-path CTC decoding (Graves et al. 2006, section 3.2): the likeliest labels, repeats and blanks dropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class GreedyToken:
    """A token and the frames [start_frame, end_frame) in which it was the likeliest label."""

    token_id: int
    start_frame: int
    end_frame: int


class GreedyDecoder:
    """Streaming best-path decoding: tokens of any split of the frames are those of the whole."""

    def __init__(self, blank_id: int = 0) -> None:
        self._blank_id = blank_id
        self.begin()

    def begin(self) -> None:
        """Start an utterance."""
        self._frames = 0
        self._tokens: list[GreedyToken] = []

    def step(self, log_probs: NDArray[np.float32]) -> None:
        """Read on through (T, V) log-probabilities."""
        for label in log_probs.argmax(axis=1).tolist():
            last = self._tokens[-1] if self._tokens else None
            if last is not None and last.token_id == label and last.end_frame == self._frames:
                self._tokens[-1] = GreedyToken(label, last.start_frame, self._frames + 1)
            elif label != self._blank_id:
                self._tokens.append(GreedyToken(label, self._frames, self._frames + 1))
            self._frames += 1

    @property
    def tokens(self) -> tuple[GreedyToken, ...]:
        """All tokens since `begin`; the last may still grow."""
        return tuple(self._tokens)


def greedy(log_probs: NDArray[np.float32], blank_id: int = 0) -> tuple[GreedyToken, ...]:
    """Tokens of (T, V) log-probabilities."""
    decoder = GreedyDecoder(blank_id)
    decoder.step(log_probs)
    return decoder.tokens
