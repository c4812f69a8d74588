"""One alignment per utterance: what became of each reference word.

An alignment is a string of operations, one letter each, in the order of the utterance: C correct, S substituted,
D deleted (a reference word that the hypothesis lacks), I inserted (a hypothesis word that the reference lacks). Its
counts, its confusions and its picture come from the same string.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import jiwer

from asr_service.evaluation.sclite_costs import align_sclite

Costs = Literal["equal", "sclite"]
COSTS: tuple[str, ...] = get_args(Costs)
# jiwer keeps an object per run of operations; in blocks of this many utterances that stays a few megabytes.
BLOCK_UTTERANCES = 1000
_LETTERS = {"equal": "C", "substitute": "S", "delete": "D", "insert": "I"}


@dataclass(frozen=True, slots=True)
class AlignedWord:
    """One operation with its words: `reference` is None where a word was inserted, `hypothesis` where one is gone."""

    operation: str
    reference: str | None
    hypothesis: str | None


def align(pairs: Sequence[tuple[Sequence[str], Sequence[str]]], costs: Costs = "equal") -> list[str]:
    """The operations of each (reference words, hypothesis words), with the fewest errors under `costs`.

    `equal`: every error costs one, aligned by jiwer. `sclite`: NIST's weights and ties (see sclite_costs). Words are
    not empty and hold no white space. Raises ValueError for unknown costs.
    """
    if costs not in COSTS:
        raise ValueError(f"costs must be {' or '.join(COSTS)}, not {costs!r}")
    if costs == "sclite":
        return align_sclite(pairs)
    operations: list[str] = []
    for begin in range(0, len(pairs), BLOCK_UTTERANCES):
        block = pairs[begin : begin + BLOCK_UTTERANCES]
        operations += _align_equal(block)
    return operations


def aligned_words(reference: Sequence[str], hypothesis: Sequence[str], operations: str) -> Iterator[AlignedWord]:
    """The words of each operation of an alignment of these two. Raises StopIteration's RuntimeError for another's."""
    said, heard = iter(reference), iter(hypothesis)
    for operation in operations:
        yield AlignedWord(
            operation, None if operation == "I" else next(said), None if operation == "D" else next(heard)
        )


def _align_equal(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[str]:
    """The alignment of jiwer: every error costs one (Levenshtein distance of words)."""
    texts = [(" ".join(reference), " ".join(hypothesis)) for reference, hypothesis in pairs]
    alignments = jiwer.process_words([said for said, _ in texts], [heard for _, heard in texts]).alignments
    return [
        "".join(
            _LETTERS[run.type] * max(run.ref_end_idx - run.ref_start_idx, run.hyp_end_idx - run.hyp_start_idx)
            for run in runs
        )
        for runs in alignments
    ]
