"""Many token sequences as one prefix tree, so that a decoder computes what they share once.

Dimensions: N sequences, U tokens, K nodes of the tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenTree:
    """Prefixes of N sequences, each once; node 0 is the empty one.

    Attributes:
        token_ids: (K,) the last token of each prefix; the root has `root_token`.
        depths: (K,) its length.
        visible: (K, K), True where the column is a prefix of the row, or the row itself.
        paths: for each sequence its nodes, the root first: one more than it has tokens.
    """

    token_ids: Tensor
    depths: Tensor
    visible: Tensor
    paths: tuple[tuple[int, ...], ...]

    @staticmethod
    def build(sequences: Sequence[Sequence[int]], root_token: int) -> TokenTree:
        children: dict[tuple[int, int], int] = {}
        tokens, depths, parents = [root_token], [0], [0]
        paths = []
        for sequence in sequences:
            path = [0]
            for token in sequence:
                node = children.setdefault((path[-1], token), len(tokens))
                if node == len(tokens):
                    tokens.append(token)
                    depths.append(len(path))
                    parents.append(path[-1])
                path.append(node)
            paths.append(tuple(path))
        visible = np.eye(len(tokens), dtype=np.bool_)
        for node in range(1, len(tokens)):  # parents come first
            visible[node, :node] = visible[parents[node], :node]
        return TokenTree(torch.tensor(tokens), torch.tensor(depths), torch.from_numpy(visible), tuple(paths))
