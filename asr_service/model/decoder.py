"""The autoregressive Transformer decoder (Vaswani et al. 2017, section 3.1).

Dimensions: B batch, N beam rows, U tokens, S encoder frames, D model, H heads, d = D/H, V word pieces.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from asr_service.model.attention import MultiHeadAttention
from asr_service.model.config import TransformerConfig
from asr_service.model.layers import ChannelDropout, FeedForward
from asr_service.model.positions import sinusoids
from asr_service.model.tree_cache import SIZES, TreeCache, padded_stretch


@dataclass(slots=True)
class DecoderCache:
    """Keys and values of N rows: of the tokens so far (N, H, capacity, d), and of the encoder (1 or N, H, S, d).

    `length` tokens have been fed to every row. `memory_mask` is (1 or N, 1, 1, S) or None.
    """

    self_key: list[Tensor]
    self_value: list[Tensor]
    memory_key: list[Tensor]
    memory_value: list[Tensor]
    memory_mask: Tensor | None
    length: int

    @property
    def capacity(self) -> int:
        return int(self.self_key[0].shape[2])

    def reorder(self, index: Tensor) -> None:
        """Make row i continue what row `index[i]` was; `index` may be longer or shorter than the rows there are."""
        self.self_key = [tensor[index] for tensor in self.self_key]
        self.self_value = [tensor[index] for tensor in self.self_value]
        if self.memory_key[0].shape[0] > 1:
            self.memory_key = [tensor[index] for tensor in self.memory_key]
            self.memory_value = [tensor[index] for tensor in self.memory_value]
            if self.memory_mask is not None:
                self.memory_mask = self.memory_mask[index]


@dataclass(slots=True)
class AttendingTreeCache(TreeCache):
    """With keys and values a layer of the tree's utterance, each (1, H, S, d). `memory_mask` is (S,) or None."""

    memory: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    memory_mask: Tensor | None = None


class DecoderBlock(nn.Module):
    """Masked self-attention, attention over the encoder, feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.self_norm = nn.LayerNorm(config.d_model)
        self.self_attention = MultiHeadAttention(config.d_model, config.n_heads)
        self.cross_norm = nn.LayerNorm(config.d_model)
        self.cross_attention = MultiHeadAttention(config.d_model, config.n_heads)
        self.ffn_norm = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config.d_model, config.ffn_dim, config.activation)
        self.dropout = ChannelDropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        self_key_value: tuple[Tensor, Tensor] | None,
        self_mask: Tensor | None,
        memory_key_value: tuple[Tensor, Tensor],
        memory_mask: Tensor | None,
    ) -> Tensor:
        """(B, U, D) → (B, U, D). `self_key_value` None: those of `x` itself."""
        inputs = self.self_norm(x) if self.pre_norm else x
        key, value = self.self_attention.key_value(inputs) if self_key_value is None else self_key_value
        x = x + self.dropout(self.self_attention(self.self_attention.query(inputs), key, value, self_mask))
        x = x if self.pre_norm else self.self_norm(x)
        inputs = self.cross_norm(x) if self.pre_norm else x
        branch = self.cross_attention(self.cross_attention.query(inputs), *memory_key_value, memory_mask)
        x = x + self.dropout(branch)
        x = x if self.pre_norm else self.cross_norm(x)
        x = x + self.dropout(self.ffn(self.ffn_norm(x) if self.pre_norm else x))
        return x if self.pre_norm else self.ffn_norm(x)


class Decoder(nn.Module):
    """Embedding, blocks, and an output projection that shares the embedding's weights."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_layers))
        self.final_norm = nn.LayerNorm(config.d_model) if config.norm == "pre" else nn.Identity()
        self.dropout = ChannelDropout(config.dropout)

    @property
    def _layers(self) -> tuple[DecoderBlock, ...]:
        return cast(tuple[DecoderBlock, ...], tuple(self.blocks))

    def _embed(self, token_ids: Tensor, positions: Tensor, count: int) -> Tensor:
        """(…, U) tokens at `positions` (U,), all below `count` → (…, U, D)."""
        encoding = sinusoids(count, self.config.d_model, device=token_ids.device)[positions]
        embedded: Tensor = self.embedding(token_ids) * self.config.d_model**0.5
        return embedded + encoding

    def forward(self, token_ids: Tensor, memory: Tensor, memory_mask: Tensor | None) -> Tensor:
        """Teacher forcing: (B, U) tokens from the begin token on, (B, S, D), mask (B, S) → logits (B, U, V)."""
        length = token_ids.shape[1]
        x = self.dropout(self._embed(token_ids, torch.arange(length, device=token_ids.device), length))
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        mask = None if memory_mask is None else memory_mask[:, None, None, :]
        for block in self._layers:
            x = block(x, None, causal, block.cross_attention.key_value(memory), mask)
        return self._logits(x)

    def start_tree(self, memory: Tensor) -> AttendingTreeCache:
        """Begin with a prefix tree of tokens over one utterance (1, S, D)."""
        frames = memory.shape[1]
        silent = -frames % SIZES
        memory_mask = None
        if silent:
            memory = nn.functional.pad(memory, (0, 0, 0, silent))
            memory_mask = torch.arange(frames + silent, device=memory.device) < frames
        empty = memory.new_zeros(0, 2 * self.config.d_model)
        return AttendingTreeCache(
            nodes=[empty for _ in self._layers],
            memory=[block.cross_attention.key_value(memory) for block in self._layers],
            memory_mask=memory_mask,
        )

    def grow_tree(
        self, token_ids: Tensor, depths: Tensor, ancestors: Tensor, visible: Tensor, cache: AttendingTreeCache
    ) -> Tensor:
        """See `TreeModel`; `cache` is of `start_tree`."""
        nodes = len(token_ids)
        token_ids, depths, ancestors, mask = padded_stretch(token_ids, depths, ancestors, visible)
        x = self._embed(token_ids, depths, int(depths.max()) + 1).unsqueeze(0)
        for index, block in enumerate(self._layers):
            inputs = block.self_norm(x) if block.pre_norm else x
            key, value = cache.extend(index, block.self_attention.kv_proj(inputs[0]), ancestors)
            seen = block.self_attention.heads(key), block.self_attention.heads(value)
            x = block(x, seen, mask, cache.memory[index], cache.memory_mask)
        cache.advance(nodes)
        return self._logits(x[0, :nodes])

    def _logits(self, x: Tensor) -> Tensor:
        out: Tensor = nn.functional.linear(self.final_norm(x), self.embedding.weight)
        return out

    def start(self, memory: Tensor, *, capacity: int, memory_mask: Tensor | None = None) -> DecoderCache:
        """Begin decoding over (B, S, D): the encoder's keys and values are computed once. B = 1 serves any beam."""
        keys, values = [], []
        for block in self._layers:
            key, value = block.cross_attention.key_value(memory)
            keys.append(key)
            values.append(value)
        shape = (memory.shape[0], self.config.n_heads, capacity, self.config.d_model // self.config.n_heads)
        return DecoderCache(
            self_key=[memory.new_zeros(shape) for _ in self._layers],
            self_value=[memory.new_zeros(shape) for _ in self._layers],
            memory_key=keys,
            memory_value=values,
            memory_mask=None if memory_mask is None else memory_mask[:, None, None, :],
            length=0,
        )

    def step(self, token_ids: Tensor, cache: DecoderCache) -> Tensor:
        """Feed one token a row, (N,), and return the log-probabilities of the next, (N, V), float32.

        Raises ValueError when the cache's capacity is used up.
        """
        position = cache.length
        if position == cache.capacity:
            raise ValueError(f"the decoder cache holds {cache.capacity} tokens")
        x = self._embed(token_ids.unsqueeze(1), torch.tensor([position]), position + 1)
        for index, block in enumerate(self._layers):
            inputs = block.self_norm(x) if block.pre_norm else x
            key, value = block.self_attention.key_value(inputs)
            cache.self_key[index][:, :, position : position + 1] = key
            cache.self_value[index][:, :, position : position + 1] = value
            past = (cache.self_key[index][:, :, : position + 1], cache.self_value[index][:, :, : position + 1])
            x = block(x, past, None, (cache.memory_key[index], cache.memory_value[index]), cache.memory_mask)
        cache.length += 1
        return torch.log_softmax(self._logits(x[:, 0]).float(), dim=-1)
