"""What an autoregressive model says of hypotheses, which share most of their prefixes: each prefix is computed once.

Dimensions: N sequences, U tokens, S encoder frames (80 ms), D model, V word pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from asr_service.decoding.token_tree import TokenTree
from asr_service.model.decoder import AttendingTreeCache, Decoder
from asr_service.model.tree_cache import TreeCache, TreeModel
from asr_service.parts import Parts
from asr_service.tokenizer import WordPieces

# Prefixes that are computed at once. It bounds how long the model runs, and a prefix is compared only with those that
# lie on the way to one of so many neighbours, not with all of the tree.
PART_NODES = 128
# Word pieces, some three words, after which the decoder is asked once for hypotheses that differ before: it hears what
# follows, and with 6 or 16 ranks dev's n-best lists as it does when asked for each (4 of 10 prefixes remain). The
# language model has only the text to go by, and is asked for each.
DECODER_CONTEXT = 8

Cache = TypeVar("Cache", bound=TreeCache)


class PrefixScores(Generic[Cache]):
    """Log-probabilities of token sequences, of one utterance where the model hears one: any number of `add`s, then `of`
    and `totals` of those sequences. For inference.
    """

    def __init__(self, model: TreeModel[Cache], cache: Cache, context: int | None = None) -> None:
        """`cache` is of a tree that the model begins with. With a `context`, what follows the same so many tokens is
        computed once, though other tokens may come before them (see `TokenTree`).
        """
        self._model, self._cache = model, cache
        self._tree = TokenTree(WordPieces.bos_id, context)
        self._log_probs: list[Tensor] = []  # of what follows the nodes, (K, V) stretch by stretch

    @torch.inference_mode()
    def add(self, sequences: Sequence[Sequence[int]]) -> Parts[None]:
        """Compute what is new of them, at most `PART_NODES` prefixes between two yields."""
        for sequence in sequences:
            self._tree.add(sequence)
        self._cache.make_room(len(self._tree))
        for start in range(self._cache.length, len(self._tree), PART_NODES):
            nodes = self._tree.nodes(start, min(start + PART_NODES, len(self._tree)))
            logits = self._model.grow_tree(nodes.token_ids, nodes.depths, nodes.ancestors, nodes.visible, self._cache)
            self._log_probs.append(torch.log_softmax(logits, dim=-1))
            yield

    @torch.inference_mode()
    def of(self, sequence: Sequence[int]) -> Tensor:
        """(U+1,) of each token after those before it, and of the end token."""
        return self._of(self._tree.add(sequence), [*sequence, WordPieces.eos_id])

    @torch.inference_mode()
    def totals(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Log-likelihoods (N,), each with its end token."""
        paths = [self._tree.add(sequence) for sequence in sequences]
        log_probs = self._of(
            [node for path in paths for node in path],
            [token for sequence in sequences for token in (*sequence, WordPieces.eos_id)],
        )
        owners = torch.repeat_interleave(torch.tensor([len(path) for path in paths]))
        return log_probs.new_zeros(len(paths)).index_add_(0, owners, log_probs)

    def _of(self, nodes: Sequence[int], tokens: Sequence[int]) -> Tensor:
        if len(self._log_probs) > 1:
            self._log_probs = [torch.cat(self._log_probs)]
        return self._log_probs[0][torch.tensor(nodes), torch.tensor(tokens)]


AttentionScores: TypeAlias = PrefixScores[AttendingTreeCache]


@torch.inference_mode()
def attention_scores(decoder: Decoder, memory: Tensor) -> AttentionScores:
    """What the decoder says over one utterance's `encoder_out`, (S, D)."""
    return PrefixScores(decoder, decoder.start_tree(memory.unsqueeze(0)), DECODER_CONTEXT)


def internal_lm_scores(decoder: Decoder) -> AttentionScores:
    """What the decoder says when it hears nothing, an `encoder_out` of zeros: its internal language model (Meng et al.
    2021, "Internal language model estimation for domain-adaptive end-to-end speech recognition").
    """
    return attention_scores(decoder, torch.zeros(1, decoder.config.d_model))
