"""Letter-to-sound for words outside the dictionary: a joint-sequence n-gram learnt from the dictionary itself.

Bisani and Ney (2008), "Joint-sequence models for grapheme-to-phoneme conversion": a word and its pronunciation are
segmented into graphones, pairs of 1-2 letters and 0-2 phones. The segmentation is learnt by EM over all alignments;
an interpolated Kneser-Ney n-gram over the best segmentations then scores new ones, and a beam search finds the
likeliest pronunciation of a spelling.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from asr_service.lexicon import Pronunciation

Graphone = tuple[str, Pronunciation]

# (letters, phones) of a graphone. Letters may be silent, phones are never without a letter.
_SHAPES = ((1, 1), (1, 0), (2, 1), (1, 2), (2, 0))
_FLOOR = 1e-7
_START = "\x01"
_END = "\x02"


def align(
    entries: Sequence[tuple[str, Pronunciation]], iterations: int = 8, em_entries: int = 20_000
) -> list[list[Graphone]]:
    """Segment dictionary entries into graphones; entries that no segmentation fits are left out.

    EM runs on every k-th entry so that it sees about `em_entries`; the others only get their best path.
    """
    sample = entries[:: max(1, len(entries) // em_entries)]
    probability: dict[Graphone, float] = defaultdict(lambda: 1.0)
    for _ in range(iterations):
        counts: dict[Graphone, float] = defaultdict(float)
        for word, phones in sample:
            _accumulate(word, phones, probability, counts)
        total = sum(counts.values())
        probability = defaultdict(lambda: _FLOOR, {key: max(value / total, _FLOOR) for key, value in counts.items()})
    segmented = (_best_segmentation(word, phones, probability) for word, phones in entries)
    return [graphones for graphones in segmented if graphones]


def _edges(word: str, phones: Pronunciation) -> list[tuple[int, int, int, int, Graphone]]:
    """All graphones that fit, as (letter, phone, next letter, next phone, graphone) in topological order."""
    edges = []
    for i in range(len(word)):
        for j in range(len(phones) + 1):
            for letters, sounds in _SHAPES:
                if i + letters <= len(word) and j + sounds <= len(phones):
                    edges.append((i, j, i + letters, j + sounds, (word[i : i + letters], phones[j : j + sounds])))
    return edges


def _accumulate(
    word: str, phones: Pronunciation, probability: dict[Graphone, float], counts: dict[Graphone, float]
) -> None:
    """Add the posterior of each graphone in each alignment of one entry (forward-backward)."""
    edges = _edges(word, phones)
    end = (len(word), len(phones))
    forward: dict[tuple[int, int], float] = defaultdict(float, {(0, 0): 1.0})
    for i, j, k, m, graphone in edges:
        forward[k, m] += forward[i, j] * probability[graphone]
    if forward[end] <= 0.0:
        return
    backward: dict[tuple[int, int], float] = defaultdict(float, {end: 1.0})
    for i, j, k, m, graphone in reversed(edges):
        backward[i, j] += backward[k, m] * probability[graphone]
    for i, j, k, m, graphone in edges:
        posterior = forward[i, j] * probability[graphone] * backward[k, m] / forward[end]
        if posterior > 0.0:
            counts[graphone] += posterior


def _best_segmentation(word: str, phones: Pronunciation, probability: dict[Graphone, float]) -> list[Graphone]:
    best: dict[tuple[int, int], tuple[float, tuple[int, int], Graphone | None]] = {(0, 0): (1.0, (0, 0), None)}
    for i, j, k, m, graphone in _edges(word, phones):
        if (i, j) in best:
            score = best[i, j][0] * probability[graphone]
            if (k, m) not in best or score > best[k, m][0]:
                best[k, m] = (score, (i, j), graphone)
    node = (len(word), len(phones))
    if node not in best:
        return []
    path: list[Graphone] = []
    while node != (0, 0):
        _, node, step = best[node]
        assert step is not None
        path.append(step)
    return path[::-1]


class LetterToSound:
    """Pronounces spellings. Each graphone is one character of a string, so that n-grams are short strings."""

    def __init__(self, segmentations: Iterable[Sequence[Graphone]], order: int = 6) -> None:
        self._order = order
        symbols: dict[Graphone, str] = {}
        texts = []
        for graphones in segmentations:
            for graphone in graphones:
                if graphone not in symbols:
                    symbols[graphone] = chr(0x100 + len(symbols))
            texts.append("".join(symbols[graphone] for graphone in graphones))
        self._by_letters: dict[str, list[tuple[str, Pronunciation]]] = defaultdict(list)
        for (letters, phones), symbol in symbols.items():
            self._by_letters[letters].append((symbol, phones))
        self._vocabulary = len(symbols) + 1
        self._estimate(texts)
        self._cache: dict[str, float] = {}

    def _estimate(self, texts: Sequence[str]) -> None:
        """Interpolated Kneser-Ney with one discount an order: D = n1 / (n1 + 2 n2) (Chen and Goodman 1999)."""
        counts: list[Counter[str]] = [Counter() for _ in range(self._order + 1)]
        pad = _START * (self._order - 1)
        for text in texts:
            padded = pad + text + _END
            for end in range(self._order, len(padded) + 1):
                counts[self._order][padded[end - self._order : end]] += 1
        # Below the highest order an n-gram counts once for each different symbol before it.
        for length in range(self._order - 1, 0, -1):
            counts[length].update(ngram[1:] for ngram in counts[length + 1])
        self._counts = counts
        self._totals: list[Counter[str]] = [Counter() for _ in range(self._order + 1)]
        self._types: list[Counter[str]] = [Counter() for _ in range(self._order + 1)]
        self._discounts = [0.0] * (self._order + 1)
        for length in range(1, self._order + 1):
            of_counts = Counter(counts[length].values())
            self._discounts[length] = of_counts[1] / max(1, of_counts[1] + 2 * of_counts[2])
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
        if len(self._cache) > 2_000_000:
            self._cache.clear()
        self._cache[ngram] = value
        return value

    def pronounce(self, word: str, beam: int = 12, n_best: int = 1) -> list[Pronunciation]:
        """The likeliest pronunciations of a spelling of letters and apostrophes, best first; none for ""."""
        # hypotheses[i]: the last symbols -> the best (log probability, phones) that has read i letters and ends in them
        hypotheses: list[dict[str, tuple[float, Pronunciation]]] = [{} for _ in range(len(word) + 1)]
        hypotheses[0][_START * (self._order - 1)] = (0.0, ())
        for position in range(len(word)):
            survivors = heapq.nlargest(beam, hypotheses[position].items(), key=lambda item: item[1][0])
            for width in (1, 2):
                target = position + width
                graphones = self._by_letters.get(word[position:target], ()) if target <= len(word) else ()
                for history, (score, phones) in survivors:
                    for symbol, sounds in graphones:
                        ngram = history + symbol
                        value = score + math.log(self._probability(ngram))
                        known = hypotheses[target].get(ngram[1:])
                        if known is None or value > known[0]:
                            hypotheses[target][ngram[1:]] = (value, phones + sounds)
        totals: dict[Pronunciation, float] = {}
        for history, (score, phones) in hypotheses[len(word)].items():
            value = score + math.log(self._probability(history + _END))
            if phones and value > totals.get(phones, -math.inf):
                totals[phones] = value
        return heapq.nlargest(n_best, totals, key=lambda phones: totals[phones])
