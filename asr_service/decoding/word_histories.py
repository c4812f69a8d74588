"""The word sequences of a beam search as a tree: each history is another one and a word more.

Dimensions: H histories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from flashlight.lib.text.decoder import LMState
from numpy.typing import NDArray

from asr_service.decoding.search_arrays import EMPTY
from asr_service.decoding.token_passing import pair_slot, remember

NO_WORDS = 0


class WordHistories:
    """Histories by number; 0 is the empty one.

    Attributes:
        gains: (H or more,) float64, what the last word of a history adds to a score.
        contexts: (H or more,) int32, a number that histories with the same last words share.
        keys, values: the table of pairs for `token_passing`.
    """

    def __init__(
        self, start: LMState, extend: Callable[[LMState, int], tuple[LMState, float, float]], context_words: int
    ) -> None:
        """`extend`: state and word → the state after it, the word's ln p, and what it adds to a score.
        `context_words`: how many last words make a context.
        """
        self._extend = extend
        self._context_words = context_words
        self._parents = [-1]
        self._words = [-1]
        self._depths = [0]
        self._log_probs = [0.0]
        self._states = [start]
        self.gains = np.zeros(1024)
        self.contexts = np.zeros(1024, dtype=np.int32)
        self._tails: list[tuple[int, ...]] = [()]
        self._numbers: dict[tuple[int, ...], int] = {(): 0}
        self._new_table(4096)

    def __len__(self) -> int:
        return len(self._words)

    def make_room(self, pairs: int) -> None:
        """See that `pairs` more fit into the table and that it stays half empty."""
        if 2 * (self._pairs + pairs) > len(self.keys):
            old_keys, old_values = self.keys, self.values
            self._new_table(2 * len(self.keys))
            taken = (old_keys != EMPTY) & (old_values >= 0)
            self._enter(old_keys[taken] >> 32, old_keys[taken] & 0xFFFFFFFF, old_values[taken])

    def add(self, pairs: NDArray[np.int64]) -> None:
        """Score the words of (n, 2) pairs of history and word."""
        following = np.arange(len(self._words), len(self._words) + len(pairs))
        if len(self._words) + len(pairs) > len(self.gains):
            more = max(len(self.gains), len(pairs))
            self.gains = np.concatenate([self.gains, np.zeros(more)])
            self.contexts = np.concatenate([self.contexts, np.zeros(more, dtype=np.int32)])
        for number, (history, word) in zip(following.tolist(), pairs.tolist(), strict=True):
            state, log_prob, gain = self._extend(self._states[history], word)
            self._parents.append(history)
            self._words.append(word)
            self._depths.append(self._depths[history] + 1)
            self._log_probs.append(self._log_probs[history] + log_prob)
            self._states.append(state)
            self.gains[number] = gain
            tail = (*self._tails[history], word)[-self._context_words :]
            self._tails.append(tail)
            self.contexts[number] = self._numbers.setdefault(tail, len(self._numbers))
        self._enter(pairs[:, 0], pairs[:, 1], following)

    def after(self, history: int, word: int) -> int:
        """The history with one word more."""
        slot, key = pair_slot(self.keys, history, word)
        if self.keys[slot] != key:
            self.make_room(1)
            self.add(np.array([[history, word]]))
            slot, _ = pair_slot(self.keys, history, word)
        return int(self.values[slot])

    def depth(self, history: int) -> int:
        """How many words a history has."""
        return self._depths[history]

    def state(self, history: int) -> LMState:
        return self._states[history]

    def log_prob(self, history: int) -> float:
        """Ln p of all words of a history."""
        return self._log_probs[history]

    def words(self, history: int) -> tuple[int, ...]:
        """The words of a history, first to last."""
        found: list[int] = []
        while history:
            found.append(self._words[history])
            history = self._parents[history]
        return tuple(reversed(found))

    def last_word(self, history: int) -> int:
        return self._words[history]

    def common(self, one: int, other: int) -> int:
        """The longest history that both begin with."""
        while one != other:
            if self._depths[one] >= self._depths[other]:
                one = self._parents[one]
            else:
                other = self._parents[other]
        return one

    def keep(self, histories: Iterable[int]) -> NDArray[np.int32]:
        """Forget all but these and what they begin with; returns the new number of each old one, -1 for none."""
        alive = np.zeros(len(self._words), dtype=bool)
        alive[NO_WORDS] = True
        for history in histories:
            ancestor = history
            while not alive[ancestor]:
                alive[ancestor] = True
                ancestor = self._parents[ancestor]
        old = np.flatnonzero(alive)
        new = np.full(len(self._words), -1, dtype=np.int32)
        new[old] = np.arange(len(old))
        self._parents = [-1, *new[np.array(self._parents)[old[1:]]].tolist()]
        self._words = [self._words[number] for number in old]
        self._depths = [self._depths[number] for number in old]
        self._log_probs = [self._log_probs[number] for number in old]
        self._states = [self._states[number] for number in old]
        for state in self._states:
            # A state holds all that were ever scored after it, so nothing would be freed. Who needs one of them again
            # has it, or scores its word once more.
            state.children = {}
        self.gains[: len(old)] = self.gains[old]
        self._tails = [self._tails[number] for number in old]
        self._numbers = {tail: number for number, tail in enumerate(dict.fromkeys(self._tails))}
        self.contexts[: len(old)] = [self._numbers[tail] for tail in self._tails]
        self._new_table(len(self.keys))
        self._enter(np.array(self._parents[1:]), np.array(self._words[1:]), np.arange(1, len(old)))
        return new

    def _new_table(self, slots: int) -> None:
        self.keys = np.full(slots, EMPTY, dtype=np.int64)
        self.values = np.full(slots, -1, dtype=np.int32)
        self._pairs = 0

    def _enter(self, histories: NDArray[np.int64], words: NDArray[np.int64], following: NDArray[np.int64]) -> None:
        remember(self.keys, self.values, histories, words, following)
        self._pairs += len(histories)
