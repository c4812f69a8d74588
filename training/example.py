"""An utterance ready for training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """Its place in the store, its targets, and who speaks (empty where that is not known)."""

    index: int
    duration_s: float
    tokens: tuple[int, ...]
    phones: tuple[int, ...]
    speaker: str = ""
