"""Many token sequences as one prefix tree, so that a decoder computes what they share once.

Dimensions: U tokens of a sequence, K nodes of a stretch of the tree, A nodes before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TreeNodes:
    """A stretch of a tree's nodes.

    Attributes:
        token_ids: (K,) the last token of each prefix; the root has the tree's root token.
        depths: (K,) its length.
        ancestors: (A,) ascending numbers of the earlier nodes that are prefixes of one of these.
        visible: (K, A + K), True where the column, of `ancestors` or of these, is a prefix of the row, or that itself.
    """

    token_ids: Tensor
    depths: Tensor
    ancestors: Tensor
    visible: Tensor


class TokenTree:
    """Prefixes of the sequences that were added, each once, in the order they came in. Node 0 is the empty one.

    With a `context`, prefixes that end in the same so many tokens, and are about as long where they meet, are one node:
    that of the one that came first, with the path that led to it. Hypotheses differ in a few places, and a model that
    has read the same words for a while says nearly the same of what follows (lattices are rescored so, Xu et al. 2018).
    """

    def __init__(self, root_token: int, context: int | None = None) -> None:
        self._children: dict[tuple[int, int], int] = {}
        self._tokens, self._depths, self._parents = [root_token], [0], [-1]
        self._context = context
        self._ends: dict[tuple[int, ...], int] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, sequence: Sequence[int]) -> list[int]:
        """Its nodes, the root first: one more than it has tokens."""
        path = [0]
        for token in sequence:
            node = self._children.get((path[-1], token))
            if node is None:
                node = self._met(sequence[: len(path)], path)
                if node is None:
                    node = len(self._tokens)
                    self._tokens.append(token)
                    self._depths.append(len(path))
                    self._parents.append(path[-1])
                self._children[path[-1], token] = node
            path.append(node)
        return path

    def _met(self, prefix: Sequence[int], path: Sequence[int]) -> int | None:
        """The node of an earlier sequence's prefix that ends like this one, whose own nodes before are `path`.

        Where there is none, this one is remembered.
        """
        if self._context is None or len(prefix) < self._context:
            return None
        end = tuple(prefix[-self._context :])
        node = self._ends.setdefault(end, len(self._tokens))
        if node == len(self._tokens) or node in path:
            return None
        return node if abs(self._depths[node] - len(prefix)) < self._context else None

    def nodes(self, start: int, end: int) -> TreeNodes:
        """Those from `start` to before `end`."""
        visible = np.zeros((end - start, end), dtype=np.bool_)
        for node in range(start, end):  # parents come first
            row, parent = visible[node - start], self._parents[node]
            if parent >= start:
                row[:] = visible[parent - start]
            else:
                while parent >= 0:
                    row[parent] = True
                    parent = self._parents[parent]
            row[node] = True
        ancestors = np.flatnonzero(visible[:, :start].any(axis=0))
        return TreeNodes(
            torch.tensor(self._tokens[start:end]),
            torch.tensor(self._depths[start:end]),
            torch.from_numpy(ancestors),
            torch.from_numpy(np.concatenate([visible[:, ancestors], visible[:, start:]], axis=1)),
        )
