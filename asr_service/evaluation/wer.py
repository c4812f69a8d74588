"""Word error rate, WER = (S + D + I) / N, with jiwer's counts, and how sure one can be of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from asr_service.evaluation.normalizer import normalize_transcript


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Counts of one utterance, or of many together."""

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


def word_errors(reference: str, hypothesis: str) -> WordErrors:
    """Counts of one utterance, both texts normalised first. An empty reference counts insertions."""
    reference, hypothesis = normalize_transcript(reference), normalize_transcript(hypothesis)
    if not reference:
        return WordErrors(insertions=len(hypothesis.split()))
    counts = jiwer.process_words(reference, hypothesis)
    return WordErrors(counts.substitutions, counts.deletions, counts.insertions, len(reference.split()))


def confidence_interval(
    counts: Sequence[WordErrors], *, level: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the WER over utterances (Bisani and Ney 2004): resampled with replacement."""
    errors = np.array([count.errors for count in counts])
    words = np.array([count.reference_words for count in counts])
    draws = np.random.default_rng(seed).integers(0, len(counts), size=(samples, len(counts)))
    rates = errors[draws].sum(axis=1) / np.maximum(1, words[draws].sum(axis=1))
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
