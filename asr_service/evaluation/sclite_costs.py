"""The alignment of NIST's sclite: a substitution costs 4, an insertion or a deletion 3, and ties as sclite breaks them.

Its rule for ties (SCTK, net_dp.c): the diagonal where it is as cheap as the others, a deletion only where it is cheaper
than an insertion, otherwise the insertion; the path is traced from the end.

Utterances of similar length are aligned together, row by row of the reference. Within a row an insertion depends on
the cell to its left; min over k <= j of T(k) + 3 (j - k) is 3 j plus the running minimum of T(k) - 3 k. Back pointers
are kept for a block of rows only and computed again, block by block, from stored rows on the way back, so that memory
grows with the square root of the reference's length for each hypothesis word, not with the length.

Dimensions: B utterances, N reference words, M hypothesis words (both padded), K rows of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SUBSTITUTION = 4
INSERTION = DELETION = 3
# Cells of the table for utterances that are aligned together; a longer utterance is aligned alone.
BATCH_CELLS = 1_000_000
_DIAGONAL, _DELETION, _INSERTION = range(3)
_C, _S, _D, _I = (ord(letter) for letter in "CSDI")

Ints = NDArray[np.int32]
Pair = tuple[Sequence[str], Sequence[str]]


def align_sclite(pairs: Sequence[Pair]) -> list[str]:
    """The operations (C, S, D, I) of each (reference words, hypothesis words)."""
    operations = [""] * len(pairs)
    for batch in _batches(pairs):
        for index, letters in zip(batch, _aligned([pairs[index] for index in batch]), strict=True):
            operations[index] = letters
    return operations


def _batches(pairs: Sequence[Pair]) -> Iterator[list[int]]:
    """Indices of pairs of similar length, whose padded tables have at most BATCH_CELLS cells together."""
    batch: list[int] = []
    rows = columns = 0
    for index in sorted(range(len(pairs)), key=lambda index: (len(pairs[index][0]), len(pairs[index][1]))):
        rows, columns = max(rows, len(pairs[index][0]) + 1), max(columns, len(pairs[index][1]) + 1)
        if batch and (len(batch) + 1) * rows * columns > BATCH_CELLS:
            yield batch
            batch, rows, columns = [], len(pairs[index][0]) + 1, len(pairs[index][1]) + 1
        batch.append(index)
    if batch:
        yield batch


def _aligned(pairs: Sequence[Pair]) -> Iterator[str]:
    reference, hypothesis = _word_ids(pairs)
    total, rows = reference.shape
    columns = hypothesis.shape[1]
    block = max(1, rows if total * rows * columns <= BATCH_CELLS else math.isqrt(rows))
    starts = list(range(0, rows, block))
    edge = np.broadcast_to(INSERTION * np.arange(columns + 1, dtype=np.int32), (total, columns + 1))
    edges = [edge]
    for start in starts[:-1]:
        edges.append(_rows(edges[-1], start, reference[:, start : start + block], hypothesis)[0])
    at_row = np.array([len(said) for said, _ in pairs])
    at_column = np.array([len(heard) for _, heard in pairs])
    letters = np.zeros((total, rows + columns), dtype=np.uint8)  # of each utterance from its end
    length = np.zeros(total, dtype=np.int64)
    for start in reversed(starts):
        words = reference[:, start : start + block]
        _, back = _rows(edges.pop(), start, words, hypothesis)
        while (moving := np.flatnonzero(at_row > start)).size:
            row, column = at_row[moving], at_column[moving]
            step = back[row - start - 1, moving, column]
            same = words[moving, row - start - 1] == hypothesis[moving, np.maximum(column - 1, 0)]
            letters[moving, length[moving]] = np.select(
                [step == _DELETION, step == _INSERTION, same], [_D, _I, _C], default=_S
            )
            length[moving] += 1
            at_row[moving] -= step != _INSERTION
            at_column[moving] -= step != _DELETION
    for index in range(total):
        traced = letters[index, : length[index]][::-1].tobytes().decode("ascii")
        yield "I" * int(at_column[index]) + traced


def _word_ids(pairs: Sequence[Pair]) -> tuple[Ints, Ints]:
    """Numbers for words: (B, N) of the references, padded with -1; (B, M) of the hypotheses, with -2."""
    known: dict[str, int] = {}
    tables = []
    for side, padding in ((0, -1), (1, -2)):
        # One column at least, so that an index of the empty side is valid where it is not used.
        table = np.full((len(pairs), max(1, *(len(pair[side]) for pair in pairs))), padding, dtype=np.int32)
        for row, pair in zip(table, pairs, strict=True):
            row[: len(pair[side])] = [known.setdefault(word, len(known)) for word in pair[side]]
        tables.append(table)
    return tables[0], tables[1]


def _rows(edge: Ints, start: int, words: Ints, hypothesis: Ints) -> tuple[Ints, NDArray[np.uint8]]:
    """The costs after K more reference words: the last row (B, M + 1) and all back pointers (K, B, M + 1).

    `edge` is the row of costs before them, after the first `start` words.
    """
    total, count = words.shape
    columns = np.arange(edge.shape[1], dtype=np.int32)
    back = np.empty((count, total, len(columns)), dtype=np.uint8)
    back[:, :, 0] = _DELETION
    cost = edge
    for number in range(count):
        diagonal = cost[:, :-1] + np.where(words[:, number, None] == hypothesis, 0, SUBSTITUTION)
        deletion = cost[:, 1:] + DELETION
        through = np.empty_like(cost)
        through[:, 0] = DELETION * (start + number + 1)
        np.minimum(diagonal, deletion, out=through[:, 1:], casting="same_kind")
        cost = INSERTION * columns + np.minimum.accumulate(through - INSERTION * columns, axis=1)
        insertion = cost[:, :-1] + INSERTION
        back[number, :, 1:] = np.where(
            (diagonal <= deletion) & (diagonal <= insertion),
            _DIAGONAL,
            np.where(deletion < insertion, _DELETION, _INSERTION),
        )
    return cost, back
