"""Text as it is scored: normalisers with a name and a version, because a rate means nothing without them.

`none` only splits at white space; `basic` is also what the model learns: lower case, no punctuation but apostrophes,
single spaces; `english` are the rules published with Whisper (Radford et al. 2022, appendix C), which also unite
spellings and numbers; `librispeech` writes as that corpus does. Figures of two normalisers do not compare.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

from asr_service.errors import ConfigError

# Of `basic`. Bumped whenever a rule changes, and printed beside every word error rate.
NORMALIZER_VERSION = "1"
NONE_VERSION = "1"
LIBRISPEECH_VERSION = "2"

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "`": "'"})
_NOT_SPOKEN = re.compile(r"[^a-z' ]+")
_SPACES = re.compile(r"\s+")
# Signs that are words when read: `basic` has no words for them, so the text would no longer be what is said.
_SPOKEN_SIGNS = frozenset("&%$€£¥@#+=°§½¼¾")


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


def dropped_characters(text: str) -> str:
    """The letters, digits and spoken signs of a text that `normalize_transcript` has nothing for, in order.

    Punctuation and accents are meant to go; "1984", "&" and "Ж" are said, and would be missing from the transcript.
    """
    return "".join(filter(_is_dropped, text))


@functools.lru_cache(maxsize=4096)
def _is_dropped(char: str) -> bool:
    spoken = unicodedata.category(char)[0] in "LN" or char in _SPOKEN_SIGNS
    return spoken and normalize_transcript(f"a{char}a") == "a a"


@dataclass(frozen=True, slots=True)
class Normalizer:
    """A rule that both texts of a pair go through before they are compared.

    Attributes:
        dropped: the characters of a text that are said, but not by what the rule makes of it.
    """

    name: str
    version: str
    rule: Callable[[str], str] = field(repr=False, compare=False)
    dropped: Callable[[str], str] = field(default=lambda _: "", repr=False, compare=False)

    def __call__(self, text: str) -> str:
        return self.rule(text)

    @property
    def label(self) -> str:
        """Name and version, such as `basic-1`: what is printed with a rate."""
        return f"{self.name}-{self.version}"


def normalizer(name: str) -> Normalizer:
    """The normaliser of that name, one of NORMALIZERS.

    Raises ConfigError for another name, and for `english` where the package whisper-normalizer is not installed.
    """
    try:
        return NORMALIZERS[name]()
    except KeyError:
        raise ConfigError(
            f"normalizer {name!r} is not known: one of {', '.join(NORMALIZERS)}", field="normalizer"
        ) from None


def _single_spaces(text: str) -> str:
    return " ".join(text.split())


def _as_librispeech(text: str) -> str:
    words = normalize_transcript(text).upper().split()
    return " ".join(_WRITTEN_OUT.get(word, word) for word in words)


@functools.cache
def _english() -> Normalizer:
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the normalizer english needs the package whisper-normalizer: pip install 'asr-service[eval]'",
            field="normalizer",
        ) from error
    return Normalizer("english", importlib.metadata.version("whisper-normalizer"), EnglishTextNormalizer())


# LibriSpeech spells titles out.
_WRITTEN_OUT = {"MR": "MISTER", "MRS": "MISSUS", "DR": "DOCTOR", "ST": "SAINT"}
NORMALIZERS: dict[str, Callable[[], Normalizer]] = {
    "none": lambda: Normalizer("none", NONE_VERSION, _single_spaces),
    "basic": lambda: Normalizer("basic", NORMALIZER_VERSION, normalize_transcript, dropped_characters),
    "english": _english,
    "librispeech": lambda: Normalizer("librispeech", LIBRISPEECH_VERSION, _as_librispeech, dropped_characters),
}
