"""What of a written text is said aloud: titles in full, and what would be missing from a normalised transcript."""

from __future__ import annotations

import functools
import unicodedata

from asr_service.evaluation.normalizer import normalize_transcript

# Written short and never said so. Books and transcripts differ in how they write them; a transcript has what is said.
TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor"}
# Signs that are words when read: normalisation has no words for them, so the text would no longer be what is said.
_SPOKEN_SIGNS = frozenset("&%$€£¥@#+=°§½¼¾")


def as_said(transcript: str) -> str:
    """A normalised transcript with titles in full."""
    return " ".join(TITLES.get(word, word) for word in transcript.split())


def dropped_characters(text: str) -> str:
    """The letters, digits and spoken signs of a text that `normalize_transcript` has nothing for, in order.

    Punctuation and accents are meant to go; "1984", "&" and "Ж" are said, and would be missing from the transcript.
    """
    return "".join(filter(_is_dropped, text))


@functools.lru_cache(maxsize=4096)
def _is_dropped(char: str) -> bool:
    spoken = unicodedata.category(char)[0] in "LN" or char in _SPOKEN_SIGNS
    return spoken and normalize_transcript(f"a{char}a") == "a a"
