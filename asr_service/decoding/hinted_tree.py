"""A stream's own pronunciation tree: the shared one, with the words and phrases that the stream expects boosted.

The nodes on the paths of its phrases are new, all others are those of the shared tree. A phrase earns its boost phone
by phone, so that the beam keeps what may become one; a path that becomes none loses what it had, as it loses the
look-ahead of any word that it leaves. The whole boost is a hypothesis' own where the phrase ends.

A phrase of several words is one path with one label; the n-gram scores its words one by one. A word that the lexicon
lacks is found where its letters tell how it may sound; to the n-gram it is an unknown word.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from flashlight.lib.text.decoder import LMState

from asr_service.decoding.language_model import LN10
from asr_service.decoding.phrase_hints import PhraseHints
from asr_service.decoding.pronunciation_tree import ROOT, PronunciationTree
from asr_service.decoding.search_arrays import TreeArrays
from asr_service.lexicon import PHONE_IDS, Lexicon, Pronunciation

# The likeliest pronunciations of a word that no lexicon has, best first; none where there is no telling.
Pronounce = Callable[[str], Sequence[Pronunciation]]

# A phrase's words have several pronunciations each: this many of their combinations, the preferred ones first.
MAX_PRONUNCIATIONS = 4


@dataclass(slots=True)
class _Branch:
    """What the phrases need below one node of the shared tree: look-ahead, further phones, labels that end here."""

    ahead: float = -np.inf
    children: dict[int, _Branch] = field(default_factory=dict)
    ends: dict[int, float] = field(default_factory=dict)  # label -> its look-ahead


@dataclass(slots=True)
class _Node:
    """A node of the new tree, and its children's and words' places in the arrays."""

    phone: int
    ahead: float
    children: list[int]
    words: dict[int, float]


class HintedTree:
    """The tree of streams that expect the same; immutable.

    Attributes:
        hints: what it was made for.
        root: its root; the shared tree's nodes come before it.
        arrays: shared nodes and its own.
        boosts: of the labels that have one.
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
        self._shared = shared
        self._base = shared.arrays(lm_weight)
        self._weight = lm_weight
        self.boosts: dict[int, float] = {}
        self.unheard: tuple[tuple[str, ...], ...] = tuple(
            words for words in hints.boosts if not all(word in lexicon for word in words)
        )
        self._phrases: list[tuple[str, ...]] = []  # of each label from `len(shared.words)` on
        # Of each of these labels how many phones the words before the second, third, ... have, by the phones.
        self._word_begins: list[dict[tuple[int, ...], tuple[int, ...]]] = []
        root = _Branch()
        for words, boost in hints.boosts.items():
            sounds = [lexicon.get(word) or tuple(pronounce(word) if pronounce else ()) for word in words]
            if not all(sounds):
                continue
            label = self._label(words)
            self.boosts[label] = boost
            for pronunciations in itertools.islice(itertools.product(*sounds), MAX_PRONUNCIATIONS):
                self._enter(root, label, words, boost, pronunciations)
        self._nodes: list[_Node] = []
        self.root = len(self._base.phone)
        self._graft(ROOT, 0, root)
        self.arrays = self._joined()

    def texts(self, label: int) -> tuple[str, ...]:
        """The words that a label of the search stands for."""
        known = len(self._shared.words)
        return (self._shared.words[label],) if label < known else self._phrases[label - known]

    def score(self, state: LMState, label: int) -> tuple[LMState, float, float]:
        """The n-gram's state after a label's words, their ln p, and the label's boost."""
        total = 0.0
        for text in self.texts(label):
            state, log_prob = self._shared.language_model.score(state, text)
            total += log_prob
        return state, total, self.boosts.get(label, 0.0)

    def word_begins(self, label: int, phones: Sequence[int]) -> tuple[int, ...]:
        """Where in the `phones` of a label's pronunciation its second and further words begin."""
        known = len(self._shared.words)
        return self._word_begins[label - known].get(tuple(phones), ()) if label >= known else ()

    def _label(self, words: tuple[str, ...]) -> int:
        index = self._shared.language_model.index(words[0])
        if len(words) == 1 and index is not None:
            return index
        self._phrases.append(words)
        self._word_begins.append({})
        return len(self._shared.words) + len(self._phrases) - 1

    def _enter(
        self, root: _Branch, label: int, words: Sequence[str], boost: float, pronunciations: Sequence[Pronunciation]
    ) -> None:
        """Add a path. On it counts the n-gram of the words begun, and of the boost the share of the phones heard."""
        model = self._shared.language_model
        phones = [PHONE_IDS[phone] for pronunciation in pronunciations for phone in pronunciation]
        begins = tuple(itertools.accumulate(map(len, pronunciations)))[:-1]
        if label >= len(self._shared.words):
            self._word_begins[label - len(self._shared.words)][tuple(phones)] = begins
        node, prior = root, 0.0
        for heard, phone in enumerate(phones, start=1):
            if heard == 1 or heard - 1 in begins:
                word = words[0 if heard == 1 else begins.index(heard - 1) + 1]
                index = model.index(word)
                prior += self._weight * LN10 * model.unigram(model.unknown_id if index is None else index)
            node = node.children.setdefault(phone, _Branch())
            ahead = prior + boost * heard / len(phones)
            node.ahead = max(node.ahead, ahead)
        node.ends[label] = max(node.ends.get(label, -np.inf), ahead)

    def _graft(self, shared: int | None, phone: int, branch: _Branch) -> int:
        """A copy of the shared tree's node, which may be missing, with what `branch` adds; returns its place."""
        base = self._base
        children: dict[int, int] = {}
        words: dict[int, float] = {}
        ahead = branch.ahead
        if shared is not None:
            below = base.child[base.first_child[shared] : base.first_child[shared + 1]]
            children = dict(zip(base.phone[below].tolist(), below.tolist(), strict=True))
            entries = slice(base.first_word[shared], base.first_word[shared + 1])
            words = dict(zip(base.word[entries].tolist(), base.word_ahead[entries].tolist(), strict=True))
            ahead = max(ahead, float(base.ahead[shared]))
        place = self.root + len(self._nodes)
        node = _Node(phone, 0.0 if shared == ROOT else ahead, [], words | branch.ends)
        self._nodes.append(node)
        for sound, further in branch.children.items():
            children[sound] = self._graft(children.get(sound), sound, further)
        node.children = list(children.values())
        return place

    def _joined(self) -> TreeArrays:
        base, nodes = self._base, self._nodes

        def ends(counts: list[int], first: int) -> np.ndarray:
            return (first + np.cumsum(counts)).astype(np.int32)

        children = [child for node in nodes for child in node.children]
        words = [entry for node in nodes for entry in node.words.items()]
        return TreeArrays(
            phone=np.concatenate([base.phone, np.array([node.phone for node in nodes], dtype=np.int8)]),
            first_child=np.concatenate(
                [base.first_child, ends([len(node.children) for node in nodes], len(base.child))]
            ),
            child=np.concatenate([base.child, np.array(children, dtype=np.int32)]),
            first_word=np.concatenate([base.first_word, ends([len(node.words) for node in nodes], len(base.word))]),
            word=np.concatenate([base.word, np.array([label for label, _ in words], dtype=np.int32)]),
            ahead=np.concatenate([base.ahead, np.array([node.ahead for node in nodes], dtype=np.float32)]),
            word_ahead=np.concatenate([base.word_ahead, np.array([ahead for _, ahead in words], dtype=np.float32)]),
        )
