"""How sure a rate is: the bootstrap of Bisani and Ney (ICASSP 2004), over speakers or over utterances.

A bootstrap sample draws N units with replacement from the N there are and sums their errors and words. Units are put
in order first, so the result does not depend on how an evaluation was sharded.

Dimensions: N units, C counted quantities, R bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from asr_service.evaluation.result import Interval

# Under this number of speakers their bootstrap is too coarse to trust.
MIN_SPEAKERS = 20
# Of one block of draws; its indices and what they gather take 12 bytes each.
BLOCK_VALUES = 100_000


def wer_interval(
    errors: Sequence[int] | NDArray[np.int64],
    words: Sequence[int] | NDArray[np.int64],
    speakers: Sequence[str],
    *,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The percentile interval of the corpus rate, sum of `errors` over sum of `words`, one of each an utterance.

    Speakers are drawn where every utterance has one and there are at least MIN_SPEAKERS of them, because utterances of
    one speaker share what makes them hard; otherwise utterances. `Interval.over` says which. A draw without any
    reference word counts as one of one word. One utterance has no interval, and neither has none: `Interval.exists`.

    Raises ValueError where the lengths differ, or `level` or `samples` is out of range.
    """
    if not len(errors) == len(words) == len(speakers):
        raise ValueError(
            f"{len(errors)} errors, {len(words)} words and {len(speakers)} speakers do not belong together"
        )
    over, units = sampling_units(np.column_stack([errors, words]), speakers)
    rates = [drawn[:, 0] / np.maximum(1, drawn[:, 1]) for drawn in resampled_sums(units, samples=samples, seed=seed)]
    low, high = percentile_interval(np.concatenate(rates), level)
    return Interval(low, high, over, level, samples, seed)


def sampling_units(counts: NDArray[np.int64], speakers: Sequence[str]) -> tuple[str, NDArray[np.int64]]:
    """What is drawn, as in `Interval.over`, and the counts of each unit (N, C) from those of utterances."""
    if len(counts) < 2:
        return "nothing", counts
    known = set(speakers)
    if "" in known or len(known) < MIN_SPEAKERS:
        return "utterances", counts
    _, owner = np.unique(np.asarray(speakers), return_inverse=True)
    units = np.zeros((len(known), counts.shape[1]), dtype=np.int64)
    np.add.at(units, owner, counts)
    return "speakers", units


def resampled_sums(
    units: NDArray[np.int64], *, samples: int, seed: int, block_values: int = BLOCK_VALUES
) -> Iterator[NDArray[np.int64]]:
    """The summed counts of each of R bootstrap samples, in blocks (r, C) that together are (R, C).

    The numbers do not depend on the size of a block: the generator draws one sample after the other.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    total = len(units)
    if not total:
        yield np.zeros((samples, units.shape[1]), dtype=np.int64)
        return
    ordered = units[np.lexsort(units.T)]
    columns = [column.astype(np.int32) for column in ordered.T]
    generator = np.random.default_rng(seed)
    rows = max(1, block_values // total)
    for begin in range(0, samples, rows):
        drawn = generator.integers(0, total, size=(min(rows, samples - begin), total), dtype=np.uint32)
        yield np.stack([column.take(drawn).sum(axis=1) for column in columns], axis=1)


def percentile_interval(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    """The middle `level` of the bootstrap distribution."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
