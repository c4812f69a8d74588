"""What a transcript's words are when they are said: titles in full."""

from __future__ import annotations

# Written short and not said so. Books and transcripts differ in how they write them; a transcript has what is said.
# "st" is a street's as well, where it comes last; in prose, of which language models are made, it is mostly a saint's.
TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor", "st": "saint"}


def as_said(transcript: str) -> str:
    """A normalised transcript with titles in full."""
    return " ".join(TITLES.get(word, word) for word in transcript.split())
