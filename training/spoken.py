"""What of a written text is said aloud: titles in full, and what would be missing from a normalised transcript."""

from __future__ import annotations

from asr_service.evaluation.normalizer import dropped_characters

__all__ = ["TITLES", "as_said", "dropped_characters"]

# Written short and never said so. Books and transcripts differ in how they write them; a transcript has what is said.
TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor"}


def as_said(transcript: str) -> str:
    """A normalised transcript with titles in full."""
    return " ".join(TITLES.get(word, word) for word in transcript.split())
