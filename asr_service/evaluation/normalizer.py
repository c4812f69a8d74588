"""Text as it is scored and as the model learns it: lower case, no punctuation but apostrophes, single spaces."""

from __future__ import annotations

import re
import unicodedata

# Bumped whenever a rule changes, and printed beside every word error rate: figures of two versions do not compare.
NORMALIZER_VERSION = "1"

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "`": "'"})
_NOT_SPOKEN = re.compile(r"[^a-z' ]+")
_SPACES = re.compile(r"\s+")


def normalize_transcript(text: str) -> str:
    """Return `text` in lower case with letters, apostrophes and single spaces only.

    Accents are dropped ("café" → "cafe"), every other character separates words ("well-known" → "well known"), and an
    apostrophe stays where it touches a letter ("'tis", "don't") but not as a quotation mark around a word ("'yes'").
    """
    text = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES)).lower()
    text = "".join(char for char in text if not unicodedata.combining(char))
    words = []
    for word in _SPACES.split(_NOT_SPOKEN.sub(" ", text)):
        bare = word.strip("'")
        if bare:
            quoted = word[0] == word[-1] == "'"
            words.append(bare if quoted else word)
    return " ".join(words)
