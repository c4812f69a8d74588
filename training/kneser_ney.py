"""Modified Kneser-Ney n-grams of small texts, as an ARPA file: what KenLM's `lmplz` computes, without a compiler.

Chen and Goodman (1999), "An empirical study of smoothing techniques for language modeling", equations (23)-(26), with
`lmplz`'s conventions (Heafield et al. 2013): an n-gram that begins with <s> keeps its plain count at every order, the
unigrams are interpolated with a uniform distribution over all words, </s> and <unk>, and the counts of pruned n-grams
go to the back-off of their history. Everything is held in dictionaries: right for a few million words.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.atomic import atomic_text

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
MIN_ORDER, MAX_ORDER = 2, 6  # what KenLM's reader takes
MAX_WORDS = 3_000_000  # of text: about 2 GB of dictionaries at order 4
# Discounts of the counts 1, 2 and 3 or more where the text is too small to estimate them; `lmplz --discount_fallback`.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)

Ngram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BackoffModel:
    """A back-off n-gram in the form of an ARPA file.

    Args:
        probabilities: of order n at index n-1: n-gram (history, word) → p(word | history), lower orders mixed in.
        backoffs: history → the weight of the shorter history's distribution for words not listed after it.
        discounts: of the counts 1, 2 and 3 or more, for each order.
    """

    probabilities: tuple[Mapping[Ngram, float], ...]
    backoffs: Mapping[Ngram, float]
    discounts: tuple[tuple[float, float, float], ...]

    @property
    def order(self) -> int:
        return len(self.probabilities)

    @property
    def words(self) -> list[str]:
        """Everything that can follow a history: all but <s>."""
        return [word for (word,) in self.probabilities[0] if word != BEGIN]

    def probability(self, history: Sequence[str], word: str) -> float:
        """p(word | history), by back-off; a word that the model lacks has the probability of <unk>."""
        known = self.probabilities[0]
        ngram = (*(w if (w,) in known else UNKNOWN for w in history), word if (word,) in known else UNKNOWN)
        ngram = ngram[-self.order :]
        weight = 1.0
        while ngram not in self.probabilities[len(ngram) - 1]:
            weight *= self.backoffs.get(ngram[:-1], 1.0)
            ngram = ngram[1:]
        return weight * self.probabilities[len(ngram) - 1][ngram]

    def write_arpa(self, path: Path) -> None:
        """Write an ARPA file, whole or not at all; values in log10."""
        with atomic_text(path) as file:
            file.write("\\data\\\n")
            file.writelines(f"ngram {n}={len(table)}\n" for n, table in enumerate(self.probabilities, 1))
            for n, table in enumerate(self.probabilities, 1):
                file.write(f"\n\\{n}-grams:\n")
                for ngram, probability in sorted(table.items()):
                    line = f"{_log10(probability):.7g}\t{' '.join(ngram)}"
                    if n < self.order:
                        line += f"\t{_log10(self.backoffs.get(ngram, 1.0)):.7g}"
                    file.write(line + "\n")
            file.write("\n\\end\\\n")


def estimate_model(
    sentences: Iterable[str],
    order: int,
    prune: Sequence[int] = (),
    vocabulary: Collection[str] | None = None,
) -> BackoffModel:
    """Estimate an interpolated modified Kneser-Ney model.

    Args:
        sentences: words separated by spaces; without <s> and </s>, which are added.
        order: 2 to 6.
        prune: n-grams of order i that occur at most `prune[i-1]` times are dropped; the last value stands for the
            orders after it. No unigram is dropped, and the values may not fall.
        vocabulary: n-grams with other words than these are dropped; such words then are <unk>.

    Raises ValueError for an order or thresholds outside those, for more than `MAX_WORDS` words, for a special word in
    the text, and where no n-gram of the order is left.
    """
    thresholds = prune_thresholds(order, prune)
    occurrences = _occurrences(sentences, order)
    kept = [
        {ngram for ngram, count in table.items() if count > threshold and _allowed(ngram, vocabulary)}
        for table, threshold in zip(occurrences, thresholds, strict=True)
    ]
    if not kept[-1]:
        raise ValueError(f"the text has no {order}-gram to keep: lower the order, or prune less")
    probabilities: list[dict[Ngram, float]] = []
    backoffs: dict[Ngram, float] = {}
    discounts = []
    for n in range(1, order + 1):
        counts = _kneser_ney_counts(occurrences, n)
        discounts.append(_discounts(counts.values()))
        table, gammas = _discounted(counts, kept[n - 1], discounts[-1])
        if n == 1:
            uniform = gammas[()] / (len(table) + 1)
            table = {ngram: p + uniform for ngram, p in table.items()} | {(UNKNOWN,): uniform, (BEGIN,): 1.0}
        else:
            lower = probabilities[-1]
            table = {ngram: p + gammas[ngram[:-1]] * lower[ngram[1:]] for ngram, p in table.items()}
            # A history that was dropped is never looked up: its own back-off leads past it.
            backoffs.update({history: gamma for history, gamma in gammas.items() if history in lower})
        probabilities.append(table)
    return BackoffModel(tuple(probabilities), backoffs, tuple(discounts))


def prune_thresholds(order: int, prune: Sequence[int]) -> tuple[int, ...]:
    """One threshold for each order. Raises ValueError for what no estimator here takes."""
    if not MIN_ORDER <= order <= MAX_ORDER:
        raise ValueError(f"order is {order}, it must be {MIN_ORDER} to {MAX_ORDER}")
    if len(prune) > order:
        raise ValueError(f"{len(prune)} pruning thresholds for order {order}")
    given = tuple(prune) or (0,)
    thresholds = (*given, *itertools.repeat(given[-1], order - len(given)))
    if thresholds[0] != 0 or any(left > right for left, right in itertools.pairwise(thresholds)):
        raise ValueError(f"pruning thresholds {thresholds}: the first must be 0 and none below the one before")
    return thresholds


def _log10(value: float) -> float:
    return math.log10(value) if value > 0.0 else -99.0  # ARPA's zero


def _allowed(ngram: Ngram, vocabulary: Collection[str] | None) -> bool:
    return vocabulary is None or all(word in vocabulary or word in (BEGIN, END) for word in ngram)


def _occurrences(sentences: Iterable[str], order: int) -> list[Counter[Ngram]]:
    """How often each n-gram of each order occurs; <s> occurs only as the first word of a longer one."""
    counts: list[Counter[Ngram]] = [Counter() for _ in range(order)]
    total = 0
    for sentence in sentences:
        words = sentence.split()
        if special := {BEGIN, END, UNKNOWN}.intersection(words):
            raise ValueError(f"the text has the special word {special.pop()!r}")
        total += len(words)
        if total > MAX_WORDS:
            raise ValueError(f"more than {MAX_WORDS} words: a text of that size needs KenLM's lmplz (--kenlm-bin)")
        padded = (BEGIN, *words, END)
        for n, table in enumerate(counts, 1):
            table.update(padded[i : i + n] for i in range(n == 1, len(padded) - n + 1))
    return counts


def _kneser_ney_counts(occurrences: Sequence[Counter[Ngram]], n: int) -> Mapping[Ngram, int]:
    """Counts of the n-grams: below the highest order, different words before them, unless they begin a sentence."""
    if n == len(occurrences):
        return occurrences[n - 1]
    counts = Counter(ngram[1:] for ngram in occurrences[n])
    counts.update({ngram: count for ngram, count in occurrences[n - 1].items() if ngram[0] == BEGIN})
    return counts


def _discounts(counts: Iterable[int]) -> tuple[float, float, float]:
    """D1, D2 and D3+ by equation (26); the fall-back where a count is missing or a discount out of its range."""
    of_counts = Counter(counts)
    if not all(of_counts[count] for count in (1, 2, 3)):
        return FALLBACK_DISCOUNTS
    y = of_counts[1] / (of_counts[1] + 2 * of_counts[2])
    one, two, three = (j - (j + 1) * y * of_counts[j + 1] / of_counts[j] for j in (1, 2, 3))
    in_range = all(0.0 <= discount <= j for j, discount in enumerate((one, two, three), 1))
    return (one, two, three) if in_range else FALLBACK_DISCOUNTS


def _discounted(
    counts: Mapping[Ngram, int], kept: Collection[Ngram], discounts: tuple[float, float, float]
) -> tuple[dict[Ngram, float], dict[Ngram, float]]:
    """(n-gram → discounted relative frequency of those kept, history → what is left for the lower order)."""
    totals: Counter[Ngram] = Counter()
    left: defaultdict[Ngram, float] = defaultdict(float)
    for ngram, count, discount in _with_discounts(counts, kept, discounts):
        totals[ngram[:-1]] += count
        left[ngram[:-1]] += discount
    table = {
        ngram: (count - discount) / totals[ngram[:-1]]
        for ngram, count, discount in _with_discounts(counts, kept, discounts)
        if ngram in kept
    }
    return table, {history: value / totals[history] for history, value in left.items()}


def _with_discounts(
    counts: Mapping[Ngram, int], kept: Collection[Ngram], discounts: tuple[float, float, float]
) -> Iterator[tuple[Ngram, int, float]]:
    """Each n-gram with its count and what is taken off it: all of it where it was dropped."""
    for ngram, count in counts.items():
        yield ngram, count, discounts[min(count, 3) - 1] if ngram in kept else float(count)
