"""What the lexicon beam works on, as arrays: its tree, its hypotheses, and room for a frame.

Dimensions: K hypotheses of the beam, C candidates of a frame, M beaten ones, N phones with blank, R nodes, E words at
nodes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int32]
Keys = NDArray[np.int64]
Scores = NDArray[np.float64]

# Columns of the places of hypotheses.
NODE, PHONE, HISTORY = 0, 1, 2
# Columns of what is known of the beaten: by which hypothesis after the frame, from which one before it, its history.
WINNER, PARENT, BEATEN = 0, 1, 2
# A slot of a hash table that nobody has taken, or the number of nobody.
EMPTY = -1


class TreeArrays(NamedTuple):
    """A pronunciation tree; node r has the children `child[first_child[r]:first_child[r + 1]]`.

    Attributes:
        phone: (R,) int8, the phone that leads to a node.
        first_child: (R + 1,).
        child: one entry for each child of each node.
        first_word: (R + 1,); the words that end at a node are found as its children are.
        word: (E,) labels.
        ahead: (R,) float32, weighted score that is counted on at a node; 0 at the root.
        word_ahead: (E,) float32, what of it is a word's own.
    """

    phone: NDArray[np.int8]
    first_child: Integers
    child: Integers
    first_word: Integers
    word: Integers
    ahead: NDArray[np.float32]
    word_ahead: NDArray[np.float32]


class Frame(NamedTuple):
    """What the search needs to know of a frame.

    Attributes:
        log_probs: (N,) of the phone CTC.
        may_begin: (N,), which phones may extend a hypothesis.
    """

    log_probs: NDArray[np.float32]
    may_begin: NDArray[np.bool_]


class Beam(NamedTuple):
    """Hypotheses in no order: `places` (K, 3) int32 and their `scores` (K,)."""

    places: Integers
    scores: Scores


class Merged(NamedTuple):
    """Beaten hypotheses of a frame: `columns` (M, 3) int32, and by how much each was `behind` (M,) float32."""

    columns: Integers
    behind: NDArray[np.float32]


class Candidates(NamedTuple):
    """Room for what a frame makes of a beam.

    Attributes:
        places: (C, 3).
        scores: (C,).
        parents: (C,), the hypothesis from which the likeliest alignment of each comes.
        leading: (C,), that alignment's score.
        winners: (C,), the likeliest of those that differ in old words alone.
        kept: (C,), their numbers in the beam after the frame.
        stamps: slots of a hash table, a power of two: those with the frame's stamp are taken.
        owners: by whom.
        stamp: (1,).
    """

    places: Integers
    scores: Scores
    parents: Integers
    leading: Scores
    winners: Integers
    kept: Integers
    stamps: Keys
    owners: Integers
    stamp: Keys

    @classmethod
    def room_for(cls, count: int) -> Candidates:
        """Room for `count` of them; more are dropped."""
        slots = 1 << (2 * count - 1).bit_length()
        return cls(
            np.zeros((count, 3), dtype=np.int32),
            np.zeros(count),
            np.zeros(count, dtype=np.int32),
            np.zeros(count),
            np.zeros(count, dtype=np.int32),
            np.zeros(count, dtype=np.int32),
            np.zeros(slots, dtype=np.int64),  # of frames that a server counts for months
            np.zeros(slots, dtype=np.int32),
            np.zeros(1, dtype=np.int64),
        )
