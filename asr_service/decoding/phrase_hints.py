"""What a stream expects to hear: phrases of words, each with a boost, in a prefix tree over words.

A boost is a natural logarithm: a hypothesis that has the phrase is taken to be e^boost times as likely. The searches
apply it where they look ahead (`hinted_tree`, `hinted_pieces`); the final ranking applies it here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from asr_service.types import PhraseHint


@dataclass(slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    boost: float | None = None


class PhraseHints:
    """Phrases with their boosts. Immutable after construction.

    Attributes:
        boosts: the boost of each phrase, by its words; of a phrase that was given twice the larger.
    """

    def __init__(self, hints: Iterable[PhraseHint]) -> None:
        self.boosts: dict[tuple[str, ...], float] = {}
        self._root = _Node()
        for hint in hints:
            words = tuple(hint.phrase.split())
            if words and hint.boost > 0:
                self.boosts[words] = max(hint.boost, self.boosts.get(words, 0.0))
        for words, boost in self.boosts.items():
            node = self._root
            for word in words:
                node = node.children.setdefault(word, _Node())
            node.boost = boost

    def __bool__(self) -> bool:
        return bool(self.boosts)

    def score(self, words: Sequence[str]) -> float:
        """The boosts of the phrases in `words`, summed, none overlapping another: from left to right, and of those that
        begin at one word the longest. Larger boosts that begin within a phrase do not count: what has been heard would
        no longer be `settled`.
        """
        total, place = 0.0, 0
        while place < len(words):
            length, boost = self._longest(words, place)
            total += boost
            place += max(1, length)
        return total

    def settled(self, words: Sequence[str]) -> tuple[int, float]:
        """How many of the first words count the same whatever follows `words`, and the boosts in them."""
        total, place = 0.0, 0
        while place < len(words) and not self._may_go_on(words, place):
            length, boost = self._longest(words, place)
            total += boost
            place += max(1, length)
        return place, total

    def _may_go_on(self, words: Sequence[str], place: int) -> bool:
        """Whether all words from `place` on begin a phrase that is longer."""
        node: _Node | None = self._root
        for word in words[place:]:
            node = node.children.get(word) if node is not None else None
        return node is not None and bool(node.children)

    def _longest(self, words: Sequence[str], place: int) -> tuple[int, float]:
        """How many words from `place` on are a phrase, and its boost; (0, 0.0) where there is none."""
        node, length, boost = self._root, 0, 0.0
        for end in range(place, len(words)):
            following = node.children.get(words[end])
            if following is None:
                break
            node = following
            if node.boost is not None:
                length, boost = end + 1 - place, node.boost
        return length, boost
