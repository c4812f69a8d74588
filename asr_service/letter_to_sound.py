"""How words sound that no lexicon has: a joint-sequence n-gram over graphones, as it is served.

Bisani and Ney (2008), "Joint-sequence models for grapheme-to-phoneme conversion": a word and its pronunciation are
segmented into graphones, pairs of 1-2 letters and 0-2 phones. An interpolated Kneser-Ney n-gram over them scores a
spelling's segmentations, and a beam search finds the likeliest pronunciations. `training.letter_to_sound` learns it.

The file is gzipped JSON: {"format", "order", "graphones": [[letters, "PH PH"], ...], "ngrams": {text: count}}, the
n-grams of the highest order alone, each graphone one character (its index from U+0100 on).
"""

from __future__ import annotations

import functools
import gzip
import heapq
import io
import json
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_service.errors import BundleError
from asr_service.lexicon import PHONE_IDS, Pronunciation

Graphone = tuple[str, Pronunciation]

FORMAT = "asr-letter-to-sound 1"
MAX_ORDER = 8
MAX_NGRAMS = 2_000_000
MAX_FILE_BYTES = 64 * 1024 * 1024
_MAX_CACHED = 200_000
# Where nothing occurs once the formula gives 0, and what was never seen would be impossible.
_LEAST_DISCOUNT = 0.1
_FIRST_SYMBOL = 0x100
_START = "\x01"
_END = "\x02"


class LetterToSound:
    """Pronounces spellings. Each graphone is one character of a string, so that n-grams are short strings."""

    def __init__(self, graphones: Sequence[Graphone], ngrams: Mapping[str, int], order: int) -> None:
        """`ngrams`: how often each n-gram of `order` graphones occurs, padded with starts and an end."""
        self._order = order
        self._graphones, self._ngrams = tuple(graphones), ngrams
        self._by_letters: dict[str, list[tuple[str, Pronunciation]]] = defaultdict(list)
        for place, (letters, phones) in enumerate(graphones):
            self._by_letters[letters].append((chr(_FIRST_SYMBOL + place), phones))
        self._vocabulary = len(graphones) + 1
        self._estimate()
        self._cache: dict[str, float] = {}

    @classmethod
    def learn(cls, segmentations: Iterable[Sequence[Graphone]], order: int = 6) -> LetterToSound:
        """Count the n-grams of words that were segmented."""
        symbols: dict[Graphone, str] = {}
        counts: Counter[str] = Counter()
        for graphones in segmentations:
            for graphone in graphones:
                symbols.setdefault(graphone, chr(_FIRST_SYMBOL + len(symbols)))
            padded = _START * (order - 1) + "".join(symbols[graphone] for graphone in graphones) + _END
            counts.update(padded[end - order : end] for end in range(order, len(padded) + 1))
        return cls(list(symbols), counts, order)

    def save(self, path: Path) -> None:
        """Write the file; equal models give equal bytes."""
        graphones = [[letters, " ".join(phones)] for letters, phones in self._graphones]
        content = {
            "format": FORMAT,
            "order": self._order,
            "graphones": graphones,
            "ngrams": dict(sorted(self._ngrams.items())),
        }
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        path.write_bytes(gzip.compress(text.encode(), mtime=0))

    @classmethod
    def read(cls, path: Path) -> Callable[[], LetterToSound]:
        """Read and check a file that `save` wrote; what is returned makes the model of its bytes, at the first call.

        The model is a hundred times as large as the file, and few need it. Raises BundleError that names the file.
        """
        try:
            packed = path.read_bytes()
            _unpacked(packed)
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{path}: no letter-to-sound model: {error}", field=path.name) from None
        return functools.cache(lambda: cls(*_unpacked(packed)))

    def _estimate(self) -> None:
        """Interpolated Kneser-Ney with one discount an order: D = n1 / (n1 + 2 n2) (Chen and Goodman 1999)."""
        counts: list[Counter[str]] = [Counter() for _ in range(self._order)] + [Counter(self._ngrams)]
        # Below the highest order an n-gram counts once for each different symbol before it.
        for length in range(self._order - 1, 0, -1):
            counts[length].update(ngram[1:] for ngram in counts[length + 1])
        self._counts = counts
        self._totals: list[Counter[str]] = [Counter() for _ in range(self._order + 1)]
        self._types: list[Counter[str]] = [Counter() for _ in range(self._order + 1)]
        self._discounts = [0.0] * (self._order + 1)
        for length in range(1, self._order + 1):
            of_counts = Counter(counts[length].values())
            discount = of_counts[1] / max(1, of_counts[1] + 2 * of_counts[2])
            self._discounts[length] = max(_LEAST_DISCOUNT, discount)
            for ngram, count in counts[length].items():
                self._totals[length][ngram[:-1]] += count
                self._types[length][ngram[:-1]] += 1

    def _probability(self, ngram: str) -> float:
        cached = self._cache.get(ngram)
        if cached is not None:
            return cached
        length = len(ngram)
        if length == 0:
            return 1.0 / self._vocabulary
        lower = self._probability(ngram[1:])
        total = self._totals[length].get(ngram[:-1], 0)
        if total == 0:
            return lower
        discount = self._discounts[length]
        mass = max(self._counts[length].get(ngram, 0) - discount, 0.0)
        value = (mass + discount * self._types[length][ngram[:-1]] * lower) / total
        if len(self._cache) > _MAX_CACHED:
            self._cache.clear()
        self._cache[ngram] = value
        return value

    def pronounce(self, word: str, beam: int = 12, n_best: int = 1) -> list[Pronunciation]:
        """The likeliest pronunciations of a spelling of letters and apostrophes, best first; none for ""."""
        # hypotheses[i]: (the last symbols, the phones) of a segmentation that has read i letters -> log probability
        hypotheses: list[dict[tuple[str, Pronunciation], float]] = [{} for _ in range(len(word) + 1)]
        hypotheses[0][_START * (self._order - 1), ()] = 0.0
        for position in range(len(word)):
            survivors = heapq.nlargest(beam, hypotheses[position].items(), key=lambda item: item[1])
            for width in (1, 2):
                target = position + width
                graphones = self._by_letters.get(word[position:target], ()) if target <= len(word) else ()
                for (history, phones), score in survivors:
                    for symbol, sounds in graphones:
                        ngram = history + symbol
                        value = score + math.log(self._probability(ngram))
                        place = ngram[1:], phones + sounds
                        if value > hypotheses[target].get(place, -math.inf):
                            hypotheses[target][place] = value
        totals: dict[Pronunciation, float] = {}
        for (history, phones), score in hypotheses[len(word)].items():
            value = score + math.log(self._probability(history + _END))
            if phones and value > totals.get(phones, -math.inf):
                totals[phones] = value
        return heapq.nlargest(n_best, totals, key=lambda phones: totals[phones])


def _unpacked(packed: bytes) -> tuple[list[Graphone], dict[str, int], int]:
    """Raises OSError, EOFError, zlib.error, ValueError, KeyError, TypeError or AttributeError for what `save` would not
    have written.
    """
    with gzip.open(io.BytesIO(packed)) as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"more than {MAX_FILE_BYTES} bytes")
    content: Any = json.loads(data)
    if content["format"] != FORMAT:
        raise ValueError(f"format is {content['format']!r}, must be {FORMAT!r}")
    order, ngrams = content["order"], content["ngrams"]
    if type(order) is not int or not 2 <= order <= MAX_ORDER:
        raise ValueError(f"order is {order!r}, must be 2 to {MAX_ORDER}")
    graphones = [(letters, tuple(phones.split())) for letters, phones in content["graphones"]]
    if any(phone not in PHONE_IDS for _, phones in graphones for phone in phones):
        raise ValueError("a graphone has an unknown phone")
    if len(ngrams) > MAX_NGRAMS or any(len(ngram) != order for ngram in ngrams):
        raise ValueError(f"more than {MAX_NGRAMS} n-grams, or one that has not {order} symbols")
    if not graphones or not ngrams or any(type(count) is not int or count < 1 for count in ngrams.values()):
        raise ValueError("no graphones, no n-grams, or a count below 1")
    return graphones, ngrams, order
