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
    """Prefixes of the sequences that were added, each once, in the order they came in. Node 0 is the empty one."""

    def __init__(self, root_token: int) -> None:
        self._children: dict[tuple[int, int], int] = {}
        self._tokens, self._depths, self._parents = [root_token], [0], [-1]

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, sequence: Sequence[int]) -> list[int]:
        """Its nodes, the root first: one more than it has tokens."""
        path = [0]
        for token in sequence:
            node = self._children.setdefault((path[-1], token), len(self._tokens))
            if node == len(self._tokens):
                self._tokens.append(token)
                self._depths.append(len(path))
                self._parents.append(path[-1])
            path.append(node)
        return path

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
