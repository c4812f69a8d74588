"""When words were said: CTC forced alignment of a word sequence over the phone posteriors.

Viterbi over CTC's topology (Graves et al. 2006; Kürzinger et al. 2020, "CTC-segmentation"), with every pronunciation of
a word as a parallel branch. T frames of 40 ms, V = 40 phones with blank, S states, P predecessors of a state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr_service.decoding.hypothesis import TimedWord
from asr_service.lexicon import BLANK_ID, Lexicon, phone_ids

_NONE = -np.inf
# A word without a pronunciation is one state that fits any frame as well as that frame's likeliest label.
_ANY_LABEL = -1
_BETWEEN_WORDS = -1


class WordGraph:
    """CTC states of a word sequence: blank between words, and in each word its pronunciations side by side."""

    def __init__(self, words: Sequence[Sequence[Sequence[int]]]) -> None:
        """`words[i]` are the pronunciations of word i as phone ids; none means that anything may be said."""
        self.labels: list[int] = []
        self.word_of: list[int] = []
        self._predecessors: list[list[int]] = []
        blank = self._add(BLANK_ID, _BETWEEN_WORDS, [])
        self.first = [blank]
        exits: list[int] = []
        for index, pronunciations in enumerate(words):
            entry = [blank, *exits]
            exits = []
            for phones in pronunciations or [[_ANY_LABEL]]:
                start, end = self._add_branch(phones, index, entry)
                exits.append(end)
                if index == 0:
                    self.first.append(start)
            blank = self._add(BLANK_ID, _BETWEEN_WORDS, exits)
        self.last = [blank, *exits]
        width = max(map(len, self._predecessors))
        nowhere = len(self.labels)
        # (S, P), padded with a state that is never reached.
        self.predecessors = np.array([row + [nowhere] * (width - len(row)) for row in self._predecessors])

    def _add(self, label: int, word: int, predecessors: Sequence[int]) -> int:
        state = len(self.labels)
        self.labels.append(label)
        self.word_of.append(word)
        self._predecessors.append([state, *predecessors])
        return state

    def _add_branch(self, phones: Sequence[int], word: int, entry: Sequence[int]) -> tuple[int, int]:
        """One pronunciation; returns its first and last state. Equal neighbours need a blank between them."""
        first = state = self._add(
            phones[0], word, [s for s in entry if self.labels[s] != phones[0] or phones[0] == _ANY_LABEL]
        )
        for phone in phones[1:]:
            blank = self._add(BLANK_ID, word, [state])
            state = self._add(phone, word, [blank] if phone == self.labels[state] else [blank, state])
        return first, state


def align_words(log_probs: NDArray[np.float32], words: Sequence[str], lexicon: Lexicon) -> tuple[TimedWord, ...] | None:
    """Place `words` on (T, 40) log-probabilities by the best alignment over all their pronunciations.

    Words outside the lexicon take the frames that suit the others best. None when T frames cannot hold the words.
    """
    graph = WordGraph([[phone_ids(phones) for phones in lexicon.get(word)] for word in words])
    path = best_path(log_probs, graph)
    if path is None:
        return None
    spans: list[list[int]] = [[] for _ in words]
    for frame, state in enumerate(path):
        if graph.word_of[state] != _BETWEEN_WORDS:
            spans[graph.word_of[state]].append(frame)
    return tuple(TimedWord(word, span[0], span[-1] + 1) for word, span in zip(words, spans, strict=True))


def best_path(log_probs: NDArray[np.float32], graph: WordGraph) -> list[int] | None:
    """The likeliest state of each frame (Viterbi), or None when no path of T frames leads through the graph."""
    frames = log_probs.shape[0]
    if frames == 0:
        return None
    emissions = label_log_probs(log_probs, graph)
    scores = np.full(len(graph.labels) + 1, _NONE)
    scores[graph.first] = emissions[0, graph.first]
    came_from = np.zeros((frames, len(graph.labels)), dtype=np.int16)
    rows = np.arange(len(graph.labels))
    for frame in range(1, frames):
        arriving = scores[graph.predecessors]
        choice = arriving.argmax(axis=1)
        came_from[frame] = choice
        scores[:-1] = arriving[rows, choice] + emissions[frame]
    state = max(graph.last, key=lambda last: scores[last])
    if scores[state] == _NONE:
        return None
    path = [state]
    for frame in range(frames - 1, 0, -1):
        state = int(graph.predecessors[state, came_from[frame, state]])
        path.append(state)
    return path[::-1]


def label_log_probs(log_probs: NDArray[np.float32], graph: WordGraph) -> NDArray[np.float64]:
    """(T, S) of the states' labels, in float64, from those of all labels (T, V); any label is the frame's likeliest."""
    columns = np.concatenate([log_probs, log_probs.max(axis=1, keepdims=True)], axis=1).astype(np.float64)
    return columns[:, graph.labels]
