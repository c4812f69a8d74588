"""A stream's own pronunciation tree: the shared one, with the words and phrases that the stream expects boosted.

A tree of all words takes seconds to build, so a stream copies only the nodes on the paths of its phrases and shares all
others. On those nodes the look-ahead counts the boost, so that the beam keeps what may become a phrase; a path that
becomes none loses it again, as it loses the look-ahead of any word that it leaves.

The boost itself is paid once, where a phrase ends, by columns: a phrase ends in a leaf with a further name for its last
phone, whose column is that phone's log-probability plus the boost. That keeps the n-gram in the library: a language
model that adds boosts in Python would be asked 100,000 times per second of audio, and the search would cost nine times
as much. Each different boost has its own names.

A phrase of several words is one path with one label, which the n-gram takes for an unknown word: the boost must be
worth more than that. The final ranking gives its words their true probabilities. So is a word that the lexicon lacks,
where its letters tell how it may sound: there the n-gram is right.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from flashlight.lib.text.decoder import Trie, TrieNode
from numpy.typing import NDArray

from asr_service.decoding.language_model import LN10
from asr_service.decoding.phrase_hints import PhraseHints
from asr_service.decoding.pronunciation_tree import (
    COLUMNS,
    IMPOSSIBLE,
    PronunciationTree,
    with_second_names,
)
from asr_service.lexicon import BLANK_ID, PHONE_IDS, PHONE_VOCABULARY_SIZE, Lexicon, Pronunciation

# The likeliest pronunciations of a word that no lexicon has, best first; none where there is no telling.
Pronounce = Callable[[str], Sequence[Pronunciation]]

# A phrase's words have several pronunciations each: this many of their combinations, the preferred ones first.
MAX_PRONUNCIATIONS = 4
_PHONES = PHONE_VOCABULARY_SIZE - 1


@dataclass(slots=True)
class _Branch:
    """What the phrases need below one node of the shared tree: look-ahead (log10), further phones, ends."""

    ahead: float
    children: dict[int, _Branch] = field(default_factory=dict)
    ends: dict[int, list[tuple[int, float]]] = field(default_factory=dict)  # column -> (label, its log10)

    def child(self, phone: int, ahead: float) -> _Branch:
        branch = self.children.setdefault(phone, _Branch(ahead))
        branch.ahead = max(branch.ahead, ahead)
        return branch


class HintedTree:
    """The tree of streams that expect the same; immutable, and what it shares with others it never changes.

    Attributes:
        hints: what it was made for.
        tree: the library's.
        columns: how many columns it has.
        phone_of_column: the phone that begins with a column; 0 for blank and for second names.
        unheard: phrases that have a word outside the lexicon: no path leads to them, or one by guessed pronunciations.
    """

    def __init__(
        self,
        shared: PronunciationTree,
        lexicon: Lexicon,
        hints: PhraseHints,
        lm_weight: float,
        pronounce: Pronounce | None = None,
    ) -> None:
        """`lm_weight`: what the search multiplies the n-gram's natural logarithms by. `pronounce`: for words that the
        lexicon lacks; without it no path leads to them.
        """
        self.hints = hints
        model = shared.language_model
        self._boosts = tuple(sorted(set(hints.boosts.values())))
        self.columns = COLUMNS + 2 * _PHONES * len(self._boosts)
        names = [*range(1, PHONE_VOCABULARY_SIZE), *[0] * _PHONES]
        self.phone_of_column = [BLANK_ID, *names, 0, *names * len(self._boosts)]
        self.unheard: tuple[tuple[str, ...], ...] = tuple(
            words for words in hints.boosts if not all(word in lexicon for word in words)
        )
        self._model, self._words = model, shared.words
        self._own_words: dict[str, int] = {}  # outside the lexicon, each with its number
        self._phrases: list[tuple[int, ...]] = []  # of each label from `first_spare_id` on, its words' own labels
        self._first_phrase = model.first_spare_id
        # Likewise its pronunciations, each with the places where the second and further words begin.
        self._spellings: list[list[tuple[tuple[int, ...], tuple[int, ...]]]] = []
        root = _Branch(0.0)
        for words, boost in hints.boosts.items():
            sounds = [lexicon.get(word) or tuple(pronounce(word) if pronounce else ()) for word in words]
            if not all(sounds):
                continue
            label = self._label(words)
            log10 = model.unigram(label)
            # The look-ahead is multiplied by the weight: without one there is none.
            ahead = log10 + (boost / (lm_weight * LN10) if lm_weight > 0 else 0.0)
            first = COLUMNS + 2 * _PHONES * self._boosts.index(boost)
            combinations = itertools.product(*sounds)
            for pronunciations in itertools.islice(combinations, MAX_PRONUNCIATIONS):
                phones = tuple(PHONE_IDS[phone] for pronunciation in pronunciations for phone in pronunciation)
                if label >= self._first_phrase:
                    places = tuple(itertools.accumulate(map(len, pronunciations)))
                    self._spellings[-1].append((phones, places[:-1]))
                node = root
                for phone in phones[:-1]:
                    node = node.child(phone, ahead)
                node.ends.setdefault(first + phones[-1] - 1, []).append((label, log10))
                long = node.child(phones[-1], ahead)
                long.ends.setdefault(first + _PHONES + phones[-1] - 1, []).append((label, log10))
        self.tree = Trie(self.columns, BLANK_ID)
        # `search([])` is the root. `get_root()` gives Python a pointer that it would free.
        self.tree.search([]).children = _grafted(shared.tree.search([]), root, BLANK_ID).children

    def _label(self, words: Sequence[str]) -> int:
        ids = tuple(self._word_id(word) for word in words)
        if len(ids) == 1 and ids[0] >= 0:
            return ids[0]
        self._phrases.append(ids)
        self._spellings.append([])
        return self._first_phrase + len(self._phrases) - 1

    def _word_id(self, word: str) -> int:
        index = self._model.index(word)
        return index if index is not None else -1 - self._own_words.setdefault(word, len(self._own_words))

    def words_of(self, label: int) -> tuple[int, ...]:
        """The ids of the words that a label of the search stands for: below 0 where the lexicon lacks the word."""
        return (label,) if label < self._first_phrase else self._phrases[label - self._first_phrase]

    def texts(self, label: int) -> list[str]:
        """The words that a label of the search stands for."""
        own = list(self._own_words)
        return [self._words[index] if index >= 0 else own[-1 - index] for index in self.words_of(label)]

    def begins(self, label: int, phones: Sequence[int]) -> list[int]:
        """Where in the `phones` that led to a label its second and further words begin.

        The search may have forgotten the first phones: what began among them begins with the first of `phones`.
        """
        if label < self._first_phrase:
            return []
        for spelling, firsts in self._spellings[label - self._first_phrase]:
            forgotten = len(spelling) - len(phones)
            if forgotten >= 0 and spelling[forgotten:] == tuple(phones):
                return [max(0, first - forgotten) if phones else 0 for first in firsts]
        raise ValueError(f"the phones {list(phones)} do not end in label {label}")

    def beam_size_token(self, phones: int) -> int:
        """How many columns the library must look at for the `phones` likeliest phones and the blank."""
        return min(self.columns, 2 * phones * (1 + len(self._boosts)) + 1)

    def with_boosts(self, log_probs: NDArray[np.float32], first_frame: int, phones: int) -> NDArray[np.float32]:
        """Log-probabilities (T, 40) as the (T, columns) of the tree; a frame's `phones` likeliest alone are boosted.

        The library takes the best columns of a frame: a boosted column of an unlikely phone must not be among them.
        """
        columns = np.full((log_probs.shape[0], self.columns), IMPOSSIBLE, dtype=np.float32)
        columns[:, :COLUMNS] = with_second_names(log_probs, first_frame)
        names = columns[:, 1 : PHONE_VOCABULARY_SIZE + _PHONES]  # first and second names
        least = np.partition(log_probs[:, 1:], -phones, axis=1)[:, -phones, None] if phones < _PHONES else -np.inf
        likely = np.tile(log_probs[:, 1:] >= least, 2)
        for place, boost in enumerate(self._boosts):
            first = COLUMNS + 2 * _PHONES * place
            columns[:, first : first + 2 * _PHONES] = np.where(likely, names + np.float32(boost), IMPOSSIBLE)
        return columns


def _grafted(shared: TrieNode | None, branch: _Branch, column: int) -> TrieNode:
    """A copy of `shared`, which may be missing, with what `branch` adds; what it does not touch is shared."""
    node = TrieNode(column)
    node.max_score = branch.ahead
    children: dict[int, TrieNode] = {}
    if shared is not None:
        node.labels, node.scores = shared.labels, shared.scores
        node.max_score = max(branch.ahead, shared.max_score)
        children = shared.children
    for phone, below in branch.children.items():
        children[phone] = _grafted(children.get(phone), below, phone)
    for name, labels in branch.ends.items():
        leaf = TrieNode(name)
        leaf.labels, leaf.scores = [label for label, _ in labels], [log10 for _, log10 in labels]
        leaf.max_score = max(leaf.scores)
        children[name] = leaf
    node.children = children
    return node
