"""Word error rate, WER = (S + D + I) / N, counted from one alignment per utterance."""

from __future__ import annotations

from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from asr_service.evaluation.alignment import align
from asr_service.evaluation.normalizer import normalize_transcript


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Counts of one utterance, or of many together; of words, or of characters."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_words: int = 0

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference_words + other.reference_words,
        )

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference word; infinite where there is no reference word but errors."""
        if self.reference_words:
            return self.errors / self.reference_words
        return float("inf") if self.errors else 0.0


def count_words(operations: str) -> WordErrors:
    """The counts of an alignment, a string of C, S, D and I."""
    insertions = operations.count("I")
    return WordErrors(operations.count("S"), operations.count("D"), insertions, len(operations) - insertions)


def count_characters(reference: str, hypothesis: str) -> WordErrors:
    """Counts of the letters of two texts, spaces counted: jiwer's process_characters without its objects."""
    counts = {"replace": 0, "delete": 0, "insert": 0}
    for edit in Levenshtein.editops(reference, hypothesis):
        counts[edit.tag] += 1
    return WordErrors(counts["replace"], counts["delete"], counts["insert"], len(reference))


def word_errors(reference: str, hypothesis: str) -> WordErrors:
    """Counts of one utterance, both texts normalised by `basic` first. An empty reference counts insertions."""
    (operations,) = align([(normalize_transcript(reference).split(), normalize_transcript(hypothesis).split())])
    return count_words(operations)
