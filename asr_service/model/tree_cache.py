"""What a decoder keeps of a prefix tree of tokens, and how it takes the tree's next stretch.

Dimensions: K nodes of a stretch, A nodes before them, D model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

# Trees, and utterances beside them, are padded to multiples of this: for matrices of a size that it has not met, oneDNN
# writes code first, which takes longer than to multiply a few more rows.
SIZES = 32


@dataclass(slots=True)
class TreeCache:
    """Keys and values a layer of the nodes of a prefix tree, side by side (capacity, 2D).

    `length` nodes have been computed.
    """

    nodes: list[Tensor]
    length: int = 0

    def make_room(self, nodes: int) -> None:
        """For so many nodes in all."""
        more = nodes - self.nodes[0].shape[0]
        if more > 0:
            self.nodes = [nn.functional.pad(kept, (0, 0, 0, more)) for kept in self.nodes]

    def extend(self, layer: int, new: Tensor, ancestors: Tensor) -> tuple[Tensor, Tensor]:
        """Keep what is new of a layer, (K, 2D); returns keys and values of `ancestors` and these, (1, A + K, D) each.

        The last layer's call is followed by `advance`.
        """
        key, value = torch.cat([self.nodes[layer][ancestors], new]).unsqueeze(0).chunk(2, dim=-1)
        room = self.nodes[layer][self.length : self.length + len(new)]
        room.copy_(new[: len(room)])
        return key, value

    def advance(self, nodes: int) -> None:
        self.length += nodes


Cache_contra = TypeVar("Cache_contra", bound=TreeCache, contravariant=True)


class TreeModel(Protocol[Cache_contra]):
    """A model that grows trees."""

    def grow_tree(
        self, token_ids: Tensor, depths: Tensor, ancestors: Tensor, visible: Tensor, cache: Cache_contra
    ) -> Tensor:
        """The next K nodes of a prefix tree, (K,) tokens at (K,) depths → logits of what follows them (K, V).

        A node sees what `visible` (K, A + K) marks: itself and its ancestors, which are some of the new nodes, and of
        those that `cache`, which has room for the new ones, holds some of the A whose numbers are `ancestors`. So each
        node's logits are those of the model over the path from the root to it.
        """
        ...


def padded_stretch(
    token_ids: Tensor, depths: Tensor, ancestors: Tensor, visible: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same with K and A as multiples of `SIZES`; what was added is seen by no node that was there."""
    nodes, others = len(token_ids), len(ancestors)
    more, fewer = -nodes % SIZES, -others % SIZES
    mask = nn.functional.pad(visible, (0, more, 0, more))
    mask = torch.cat([mask[:, :others], mask.new_zeros(nodes + more, fewer), mask[:, others:]], dim=1)
    pad = nn.functional.pad
    return pad(token_ids, (0, more)), pad(depths, (0, more)), pad(ancestors, (0, fewer)), mask
