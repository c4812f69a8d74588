"""The lexicon as a prefix tree over phones with a language model: built once, shared by every search."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_service.decoding.language_model import LN10, WordLanguageModel
from asr_service.decoding.search_arrays import TreeArrays
from asr_service.lexicon import PHONE_IDS, Lexicon

ROOT = 0
# A server's searches have one or two weights of the n-gram; tuning goes through many.
KEPT_WEIGHTS = 4


class PronunciationTree:
    """Immutable after construction: any number of searches, on any thread, may share it.

    Attributes:
        words: by their labels.
        known: the same as a set.
        language_model: the n-gram.
    """

    def __init__(self, lexicon: Lexicon, lm_path: Path) -> None:
        """Raises BundleError when the language model cannot be read."""
        self.words = tuple(lexicon)
        self.known = frozenset(self.words)
        self.language_model = WordLanguageModel(lm_path, self.words)
        spellings = [
            (label, [PHONE_IDS[phone] for phone in pronunciation])
            for label, word in enumerate(self.words)
            for pronunciation in lexicon[word]
        ]
        # The tree looks ahead by the unigrams, without the sentence's begin as context: most words are not its first.
        unigrams = np.array([self.language_model.unigram(label) * LN10 for label in range(len(self.words))])
        self._arrays = _tree_arrays(spellings, unigrams)
        #: lm_weight → the tree as a search with this weight of the n-gram walks it; searches share it.
        self.arrays = functools.lru_cache(KEPT_WEIGHTS)(self._weighted)

    def _weighted(self, lm_weight: float) -> TreeArrays:
        tree = self._arrays
        weight = np.float32(lm_weight)
        return tree._replace(ahead=tree.ahead * weight, word_ahead=tree.word_ahead * weight)


def _tree_arrays(spellings: list[tuple[int, list[int]]], scores: NDArray[np.float64]) -> TreeArrays:
    """(label, phones) pairs and the scores by label → the tree, level by level, so that children lie side by side."""
    lengths = np.array([len(phones) for _, phones in spellings])
    codes = np.zeros((len(spellings), int(lengths.max(initial=0))), dtype=np.int64)
    codes[np.arange(codes.shape[1]) < lengths[:, None]] = list(
        itertools.chain.from_iterable(phones for _, phones in spellings)
    )
    node = np.zeros(len(spellings), dtype=np.int64)  # that each spelling has reached
    phones, parents, total = [np.zeros(1, dtype=np.int64)], [np.zeros(1, dtype=np.int64)], 1
    levels = []
    for place in range(codes.shape[1]):
        going = lengths > place
        edges, number = np.unique((node[going] << 8) | codes[going, place], return_inverse=True)
        node[going] = total + number
        phones.append(edges & 0xFF)
        parents.append(edges >> 8)
        levels.append(slice(total, total + len(edges)))
        total += len(edges)
    phone, parent = np.concatenate(phones), np.concatenate(parents)
    first_child = np.searchsorted(parent[1:], np.arange(total + 1)).astype(np.int32)
    labels = np.array([label for label, _ in spellings], dtype=np.int64)
    order = np.lexsort((-scores[labels], node))
    word_ahead = scores[labels[order]].astype(np.float32)
    ahead = np.full(total, -np.inf, dtype=np.float32)
    np.maximum.at(ahead, node[order], word_ahead)
    for level in reversed(levels):
        np.maximum.at(ahead, parent[level], ahead[level])
    ahead[ROOT] = 0.0
    return TreeArrays(
        phone=phone.astype(np.int8),
        first_child=first_child,
        child=np.arange(1, total, dtype=np.int32),
        first_word=np.searchsorted(node[order], np.arange(total + 1)).astype(np.int32),
        word=labels[order].astype(np.int32),
        ahead=ahead,
        word_ahead=word_ahead,
    )
