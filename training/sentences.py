"""Sentences of texts, for language models.

A dot after "Mr" ends no sentence. Who cuts there teaches a model that one ends after "mister", and that names stand
alone; texts that come one sentence a line, without punctuation, have often been cut so already.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator

from asr_service.evaluation.normalizer import normalize_transcript

_SENTENCE_END = re.compile(r"(?<=[.!?;])[\"\u201d']?\s+")
# Written with a dot before a name, and initials of one: what follows belongs to the sentence. Not a, i and o, which are
# words that sentences may end with.
_TITLES = {"mr", "mrs", "dr", "st", "messrs", "mme", "mlle", "rev", "prof", "hon", "capt", "col", "gen", "lieut", "lt"}
OPEN_ENDS = frozenset(_TITLES | set(string.ascii_lowercase) - set("aio"))


def sentences(lines: Iterable[str]) -> Iterator[str]:
    """Normalised sentences of lines that hold one each, or several with their punctuation; empty ones left out.

    One that seems to end with an abbreviation goes on with the next, be it of the same line or not.
    """
    begun: list[str] = []
    for line in lines:
        for part in _SENTENCE_END.split(line):
            words = normalize_transcript(part).split()
            begun += words
            if words and words[-1] not in OPEN_ENDS:
                yield " ".join(begun)
                begun = []
    if begun:
        yield " ".join(begun)
