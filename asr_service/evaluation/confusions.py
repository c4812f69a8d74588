"""Which words go wrong: what is taken for what, what is missed, what is made up, and words no lexicon knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass

from asr_service.evaluation.alignment import AlignedWord, aligned_words
from asr_service.evaluation.result import Evaluation


@dataclass(frozen=True, slots=True)
class Confusion:
    """An error and how often it was made; `reference` is "" for an insertion, `hypothesis` for a deletion."""

    reference: str
    hypothesis: str
    count: int


@dataclass(frozen=True, slots=True)
class Confusions:
    """The most frequent errors of each kind, most frequent first, equally frequent ones by the alphabet."""

    substitutions: tuple[Confusion, ...]
    deletions: tuple[Confusion, ...]
    insertions: tuple[Confusion, ...]


@dataclass(frozen=True, slots=True)
class OutOfVocabulary:
    """Reference words that a lexicon or word list lacks.

    Attributes:
        words, errors: how many of them there are, and how many were substituted or deleted.
        known_words, known_errors: the same of all the other reference words.
        frequent: the most frequent of them with their counts.
    """

    words: int
    errors: int
    known_words: int
    known_errors: int
    frequent: tuple[tuple[str, int], ...]

    @property
    def share(self) -> float:
        """Of all reference words."""
        return self.words / max(1, self.words + self.known_words)

    @property
    def error_rate(self) -> float:
        """Share of these words that are wrong; insertions belong to no reference word and do not count."""
        return self.errors / max(1, self.words)

    @property
    def known_error_rate(self) -> float:
        return self.known_errors / max(1, self.known_words)


def confusions(evaluation: Evaluation, *, top: int = 20) -> Confusions:
    """The `top` most frequent errors of each kind."""
    counts: dict[str, Counter[tuple[str, str]]] = {kind: Counter() for kind in "SDI"}
    for pair in _pairs(evaluation):
        if pair.operation != "C":
            counts[pair.operation][pair.reference or "", pair.hypothesis or ""] += 1
    kinds = {
        kind: tuple(
            Confusion(*words, count)
            for words, count in sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:top]
        )
        for kind, counter in counts.items()
    }
    return Confusions(kinds["S"], kinds["D"], kinds["I"])


def out_of_vocabulary(evaluation: Evaluation, vocabulary: Container[str], *, top: int = 20) -> OutOfVocabulary:
    """How the words fare that `vocabulary`, in lower case, lacks: a bundle's lexicon, or a set of words."""
    unknown: Counter[str] = Counter()
    errors = known_words = known_errors = 0
    for pair in _pairs(evaluation):
        if pair.reference is None:
            continue
        wrong = pair.operation != "C"
        if pair.reference.lower() in vocabulary:
            known_words += 1
            known_errors += wrong
        else:
            unknown[pair.reference] += 1
            errors += wrong
    frequent = tuple(sorted(unknown.items(), key=lambda item: (-item[1], item[0]))[:top])
    return OutOfVocabulary(unknown.total(), errors, known_words, known_errors, frequent)


def _pairs(evaluation: Evaluation) -> Iterator[AlignedWord]:
    for row in evaluation.utterances:
        yield from aligned_words(row.scored_reference.split(), row.scored_hypothesis.split(), row.alignment)
