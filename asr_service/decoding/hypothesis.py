"""What a search returns: word sequences with frames and the parts of their scores."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word and the CTC frames it covers: [start_frame, end_frame), counted from the search's first frame."""

    text: str
    start_frame: int
    end_frame: int


@dataclass(frozen=True, slots=True)
class BeamHypothesis:
    """One word sequence found by a beam search. All scores are natural logarithms.

    Attributes:
        score: what the search ranked by.
        acoustic_score: log-probability of the alignment (or of all alignments kept) under the CTC.
        lm_score: log-probability of the words under the language model, unweighted; 0 where there is none.
        phone_ids: the words' phones in the pronunciations that the search chose; none where it knows no phones.
    """

    words: tuple[TimedWord, ...]
    score: float
    acoustic_score: float
    lm_score: float
    phone_ids: tuple[int, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(word.text for word in self.words)
