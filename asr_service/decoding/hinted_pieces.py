"""Phrase hints for hypotheses that grow by word pieces: prefixes of letters, so that any split into pieces counts.

A hypothesis that is spelling a phrase gets its boost letter by letter, so that the beam keeps it; where it turns out to
be no phrase it loses that again. What a finished hypothesis has in all is `PhraseHints.score` of its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asr_service.decoding.phrase_hints import PhraseHints
from asr_service.tokenizer import WORD_START


@dataclass(frozen=True, slots=True)
class Hoped:
    """A hypothesis' place: the boosts that are sure, then the words that may begin a phrase, then its last letters."""

    earned: float = 0.0
    pending: tuple[str, ...] = ()
    letters: str = ""
    score: float = 0.0


class HintedPieces:
    """What a stream expects to hear, as hypotheses grow by pieces. Immutable."""

    def __init__(self, hints: PhraseHints, pieces: Sequence[str]) -> None:
        self._hints, self._pieces = hints, pieces
        # What begins a phrase -> the most boost a character, over the phrases that begin so.
        self._rates: dict[str, float] = {}
        for words, boost in hints.boosts.items():
            text = " ".join(words)
            for end in range(1, len(text) + 1):
                self._rates[text[:end]] = max(boost / len(text), self._rates.get(text[:end], 0.0))

    def start(self) -> Hoped:
        return Hoped()

    def extended(self, before: Hoped, token_id: int) -> Hoped:
        """The place after one more piece."""
        piece = self._pieces[token_id]
        earned, pending, letters = before.earned, before.pending, before.letters
        if piece.startswith(WORD_START):
            if letters:
                pending = (*pending, letters)
                count, boost = self._hints.settled(pending)
                earned, pending = earned + boost, pending[count:]
            letters = ""
        letters += piece.removeprefix(WORD_START)
        return Hoped(earned, pending, letters, earned + self._ahead(pending, letters))

    def ended(self, place: Hoped) -> float:
        """What a hypothesis that ends its last word here has got in all."""
        return place.earned + self._hints.score((*place.pending, place.letters))

    def _ahead(self, pending: tuple[str, ...], letters: str) -> float:
        """The most that undecided words and the letters after them are worth: whole phrases, then a part of one."""
        return max(
            self._hints.score(pending[:count]) + self._part(" ".join((*pending[count:], letters)))
            for count in range(len(pending) + 1)
        )

    def _part(self, text: str) -> float:
        return self._rates.get(text, 0.0) * len(text)
