"""Words and how they are pronounced: the phone inventory of the phone CTC, and the pronunciation lexicon of a bundle.

Phones are the 39 ARPAbet symbols of the CMU dictionary without stress. In the phone CTC index 0 is the blank and
phone i of `PHONES` has index i + 1, so V = 40.

The lexicon's file is text, gzipped where its name ends in ".gz". First line: `asr-lexicon 1 <number of words>`. Each
further line: the word, a tab, and its pronunciations in order of preference, joined by "|", the phones of each joined
by spaces. Words are sorted and unique, in lower case with apostrophes.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from asr_service.errors import BundleError

# fmt: off
PHONES: tuple[str, ...] = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY",
    "F", "G", "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY",
    "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)
# fmt: on
BLANK_ID = 0
PHONE_VOCABULARY_SIZE = len(PHONES) + 1
PHONE_IDS: Mapping[str, int] = {phone: index + 1 for index, phone in enumerate(PHONES)}

MAX_WORDS = 500_000
MAX_WORD_LETTERS = 64
MAX_PRONUNCIATIONS = 16
MAX_PHONES = 96
MAX_FILE_BYTES = 64 * 1024 * 1024

_MAGIC = "asr-lexicon 1"
_WORD = re.compile(r"[a-z']+")

Pronunciation = tuple[str, ...]


def phone_ids(phones: Iterable[str]) -> list[int]:
    """CTC indices of phones. Raises KeyError for a symbol that is not in `PHONES`."""
    return [PHONE_IDS[phone] for phone in phones]


class Lexicon:
    """Words with their pronunciations, the preferred one first. Immutable once made.

    Pronunciations are kept as the file has them and split when they are asked for: with 200,000 words that saves half
    of the time and the memory of loading.
    """

    def __init__(self, entries: Mapping[str, Iterable[Pronunciation]]) -> None:
        """Raises ValueError for a word or pronunciation outside what the file format holds."""
        if len(entries) > MAX_WORDS:
            raise ValueError(f"{len(entries)} words, at most {MAX_WORDS} are allowed")
        self._entries: dict[str, str] = {}
        for word in sorted(entries):
            entry = "|".join(map(" ".join, entries[word]))
            _check_entry(word, entry)
            self._entries[word] = entry

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, word: object) -> bool:
        return word in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __getitem__(self, word: str) -> tuple[Pronunciation, ...]:
        return tuple(tuple(phones.split(" ")) for phones in self._entries[word].split("|"))

    def get(self, word: str) -> tuple[Pronunciation, ...]:
        """The pronunciations of `word`, none for a word outside the lexicon."""
        return self[word] if word in self._entries else ()

    def save(self, path: Path) -> None:
        """Write the file; equal lexicons give equal bytes."""
        lines = [f"{_MAGIC} {len(self._entries)}"]
        lines += [f"{word}\t{entry}" for word, entry in self._entries.items()]
        data = ("\n".join(lines) + "\n").encode("ascii")
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)

    @classmethod
    def load(cls, path: Path) -> Lexicon:
        """Read a file that `save` wrote. Raises BundleError naming the file and, where it can, the line."""
        lines = _read_text(path).splitlines()
        header = re.fullmatch(rf"{_MAGIC} (\d{{1,9}})", lines[0]) if lines else None
        if header is None:
            raise BundleError(f"{path}: line 1: expected '{_MAGIC} <number of words>'", field=path.name)
        count = int(header.group(1))
        if count > MAX_WORDS or count != len(lines) - 1:
            raise BundleError(
                f"{path}: line 1: announces {count} words, {len(lines) - 1} follow, at most {MAX_WORDS} are allowed",
                field=path.name,
            )
        lexicon = cls({})
        previous = ""
        for number, line in enumerate(lines[1:], start=2):
            word, tab, rest = line.partition("\t")
            try:
                if not tab:
                    raise ValueError("expected word, tab, pronunciations")
                if word <= previous:
                    raise ValueError(f"{word!r} is not in order after {previous!r}")
                _check_entry(word, rest)
            except ValueError as error:
                raise BundleError(f"{path}: line {number}: {error}", field=path.name) from None
            lexicon._entries[word] = rest
            previous = word
        return lexicon


def _check_entry(word: str, entry: str) -> None:
    """Raise ValueError unless `entry` is the file's notation of the pronunciations of a possible word."""
    if not _WORD.fullmatch(word) or len(word) > MAX_WORD_LETTERS:
        raise ValueError(f"{word[:80]!r} is not a word of 1 to {MAX_WORD_LETTERS} letters a-z and apostrophes")
    pronunciations = entry.split("|")
    if len(pronunciations) > MAX_PRONUNCIATIONS:
        raise ValueError(f"{word!r} has {len(pronunciations)} pronunciations, allowed are 1 to {MAX_PRONUNCIATIONS}")
    for pronunciation in pronunciations:
        phones = pronunciation.split(" ")
        if len(phones) > MAX_PHONES:
            raise ValueError(f"{word!r} has a pronunciation of {len(phones)} phones, allowed are 1 to {MAX_PHONES}")
        if not PHONE_IDS.keys() >= set(phones):
            unknown = next(phone for phone in phones if phone not in PHONE_IDS)
            raise ValueError(f"{word!r} has the unknown phone {unknown[:20]!r}")


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            # Bounded: a small file can inflate to any size.
            inflater = zlib.decompressobj(wbits=31)
            data = inflater.decompress(data, MAX_FILE_BYTES)
            if not inflater.eof:
                raise BundleError(
                    f"{path}: truncated, or inflates to more than {MAX_FILE_BYTES} bytes", field=path.name
                )
        return data.decode("ascii")
    except FileNotFoundError:
        raise BundleError(f"{path}: no such file", field=path.name) from None
    except (OSError, zlib.error, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: not a lexicon: {error}", field=path.name) from None
