"""Phrase hints of a request to ours: texts normalised as the models' words are, limits held."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Protocol

from asr_service.config import PhraseHintSettings
from asr_service.errors import InvalidField
from asr_service.types import PhraseHint

FIELD = "config.phrase_hints"
_WORDS = re.compile(r"'?[a-z][a-z']*( '?[a-z][a-z']*)*")
# Apostrophes, and accents typed for one, and dashes as people and word processors write them.
_APOSTROPHES, _HYPHENS = "\u2018\u2019\u02bc\u00b4`", "-\u2010\u2011\u2012\u2013"
_TYPOGRAPHY = str.maketrans(dict.fromkeys(_APOSTROPHES, "'") | dict.fromkeys(_HYPHENS, " "))
# Letters that Unicode does not take for others with accents, as English writes them; in lower case.
_LETTERS = str.maketrans(
    dict(zip("\u0142\u00f8\u0111\u00f0\u0127\u0167\u0131", "loddhti", strict=True))  # with strokes, eth, no dot
    | {"\u00fe": "th", "\u00df": "ss", "\u00e6": "ae", "\u0153": "oe"}  # thorn, sharp s, ligatures
)


class HintGroup(Protocol):
    """A PhraseHints of the API, or what has its fields."""

    @property
    def phrases(self) -> Sequence[str]: ...

    @property
    def boost(self) -> float: ...


def phrase_hints(hints: Sequence[HintGroup], settings: PhraseHintSettings) -> tuple[PhraseHint, ...]:
    """Check and normalise. Raises InvalidField that names the field, with its place, and the limit."""
    found: list[PhraseHint] = []
    characters = 0
    for place, group in enumerate(hints):
        field = f"{FIELD}[{place}]"
        if not group.phrases:
            raise InvalidField(f"{field}.phrases is empty; it must have at least one phrase", field=f"{field}.phrases")
        if len(found) + len(group.phrases) > settings.max_phrases:
            raise InvalidField(
                f"{FIELD} has more than {settings.max_phrases} phrases, the most of a request", field=FIELD
            )
        characters += sum(map(len, group.phrases))
        if characters > settings.max_characters:
            raise InvalidField(
                f"{FIELD} has more than {settings.max_characters} characters, the most of a request", field=FIELD
            )
        if not 0 <= group.boost <= settings.MAX_BOOST:
            raise InvalidField(
                f"{field}.boost is {group.boost:.9g}; it must be 0 to {settings.MAX_BOOST:g}", field=f"{field}.boost"
            )
        texts = [
            _normalised(phrase, f"{field}.phrases[{number}]", settings) for number, phrase in enumerate(group.phrases)
        ]
        found += [PhraseHint(text, group.boost or settings.boost(text)) for text in texts]
    return tuple(found)


def _normalised(phrase: str, field: str, settings: PhraseHintSettings) -> str:
    """Lower case, letters a to z only, hyphens as spaces. Raises InvalidField for what the models cannot write."""
    if len(phrase) > settings.MAX_CHARACTERS:
        raise InvalidField(
            f"{field} has {len(phrase)} characters; it must have at most {settings.MAX_CHARACTERS}", field=field
        )
    decomposed = unicodedata.normalize("NFKD", phrase.translate(_TYPOGRAPHY))
    plain = "".join(char for char in decomposed if not unicodedata.combining(char)).lower().translate(_LETTERS)
    words = plain.split()
    text = " ".join(words)
    if not _WORDS.fullmatch(text):
        rule = "letters a to z, apostrophes, hyphens and spaces; write numbers as words"
        raise InvalidField(f"{field} is {phrase[:30]!a}; it must be {rule}", field=field)
    if len(words) > settings.MAX_WORDS:
        raise InvalidField(f"{field} has {len(words)} words; it must have at most {settings.MAX_WORDS}", field=field)
    return text
