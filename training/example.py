"""An utterance ready for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """Its place in the store, its targets, and who speaks (empty where that is not known)."""

    index: int
    duration_s: float
    tokens: tuple[int, ...]
    phones: tuple[int, ...]
    speaker: str = ""


def in_words(counts: Mapping[str, int]) -> str:
    """How many utterances were left out or kept by each reason, without those of which there are none."""
    return ", ".join(f"{reason}: {count}" for reason, count in counts.items() if count) or "none left out"
