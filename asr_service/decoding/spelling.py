"""What a lexicon says of a spelling: a hypothesis of word pieces pays for each word that the lexicon lacks.

It pays as soon as no known word begins like that, so that a beam turns to the words that do while it still can.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asr_service.tokenizer import WORD_START


@dataclass(frozen=True, slots=True)
class Spelled:
    """A hypothesis' place: the letters of its last word, None once that is no known word any more; and what it owes."""

    letters: str | None = ""
    score: float = 0.0


class Spelling:
    """Known words, as they grow by pieces. Immutable; any number of searches may share it."""

    def __init__(self, words: Iterable[str], pieces: Sequence[str], unknown: float) -> None:
        """`unknown` (negative) is added for a word that is not among `words`."""
        self._words = sorted(words)
        self._known = frozenset(self._words)
        self._pieces = pieces
        self._unknown = unknown

    def start(self) -> Spelled:
        return Spelled()

    def extended(self, before: Spelled, token_id: int) -> Spelled:
        """The place after one more piece."""
        piece, score = self._pieces[token_id], before.score
        letters = before.letters
        if piece.startswith(WORD_START):
            score, letters = self.ended(before), ""
        if letters is None:
            return Spelled(None, score)
        letters += piece.removeprefix(WORD_START)
        if self._begins_word(letters):
            return Spelled(letters, score)
        return Spelled(None, score + self._unknown)

    def ended(self, place: Spelled) -> float:
        """What a hypothesis that ends its last word here has paid in all."""
        if not place.letters or place.letters in self._known:
            return place.score
        return place.score + self._unknown

    def _begins_word(self, letters: str) -> bool:
        index = bisect_left(self._words, letters)
        return index < len(self._words) and self._words[index].startswith(letters)
