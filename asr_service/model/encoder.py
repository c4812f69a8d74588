"""The Transformer encoder: whole utterances in `forward`, chunks of many streams in `forward_chunk`.

Dimensions: B batch, T feature frames, F mel bins, T4 = ⌈T/4⌉ frames of 40 ms, T8 = ⌈T4/2⌉ frames of 80 ms (after the
merge), D model, W left-context frames, V word pieces, N phones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_service.model.attention import MultiHeadAttention, attend_cached
from asr_service.model.cache import EncoderCache, LayerCache, WindowStep, last_valid
from asr_service.model.config import TransformerConfig
from asr_service.model.convolution import ConvolutionModule
from asr_service.model.layers import ChannelDropout, FeedForward, length_mask
from asr_service.model.positions import rotary_tables, rotate, rotate_sequence, sinusoids
from asr_service.model.stem import ConvStem4, halved
from asr_service.parts import Parts, at_once


@dataclass(frozen=True, slots=True)
class ChunkMask:
    """Attention in chunks: a frame sees its own chunk and `left` frames before it (40 ms frames, both even)."""

    chunk: int
    left: int

    def halved(self) -> ChunkMask:
        return ChunkMask(self.chunk // 2, self.left // 2)

    def visible(self, frames: int, device: torch.device) -> Tensor:
        """(frames, frames), True where query frame i sees key frame j."""
        position = torch.arange(frames, device=device)
        start = position // self.chunk * self.chunk
        key = position.unsqueeze(0)
        return (key < (start + self.chunk).unsqueeze(1)) & (key >= (start - self.left).unsqueeze(1))


@dataclass(slots=True)
class EncoderOutput:
    """What the encoder gives.

    Attributes:
        hidden: (B, T8, D) `encoder_out`, for the word-piece CTC and the decoder.
        lengths: (B,) its valid frames.
        phone_hidden: (B, T4, D) the whole stack's output at 25 Hz, for the upper phone CTC (None without phones).
        phone_lengths: (B,).
        lower_phone_logits: (B, T4, N) of the phone CTC below the merge (None without phones).
    """

    hidden: Tensor
    lengths: Tensor
    phone_hidden: Tensor | None
    phone_lengths: Tensor
    lower_phone_logits: Tensor | None


class EncoderBlock(nn.Module):
    """Self-attention, optional convolution module, feed-forward; each with a residual, pre- or post-norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.attention = MultiHeadAttention(config.d_model, config.n_heads)
        self.conv_norm = nn.LayerNorm(config.d_model) if config.conv_kernel else None
        self.conv = ConvolutionModule(config.d_model, config.conv_kernel) if config.conv_kernel else None
        self.ffn_norm = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config.d_model, config.ffn_dim, config.activation)
        self.dropout = ChannelDropout(config.dropout)

    def _residual(self, norm: nn.Module, x: Tensor, branch: Tensor) -> Tensor:
        x = x + self.dropout(branch)
        return x if self.pre_norm else norm(x)

    def _input(self, norm: nn.Module, x: Tensor) -> Tensor:
        return norm(x) if self.pre_norm else x

    def forward(
        self, x: Tensor, mask: Tensor, valid: Tensor | None, rotary: tuple[Tensor, Tensor] | None, chunk: int | None
    ) -> Tensor:
        """(B, T, D) → (B, T, D); `mask` broadcasts to (B, 1, T, T), `rotary` are `rotary_tables`."""
        inputs = self._input(self.attention_norm, x)
        query = self.attention.query(inputs)
        key, value = self.attention.key_value(inputs)
        if rotary is not None:
            query, key = rotate_sequence(query, *rotary), rotate_sequence(key, *rotary)
        x = self._residual(self.attention_norm, x, self.attention(query, key, value, mask))
        if self.conv is not None and self.conv_norm is not None:
            x = self._residual(self.conv_norm, x, self.conv(self._input(self.conv_norm, x), valid, chunk))
        return self._residual(self.ffn_norm, x, self.ffn(self._input(self.ffn_norm, x)))

    def step(
        self, x: Tensor, valid: Tensor | None, kept: Tensor, cache: LayerCache, at: WindowStep
    ) -> tuple[Tensor, Tensor]:
        """One chunk (B, C, D) of which the `valid` (B, C) frames count, None for all; rotary only.

        Returns the output and the convolution's left context after the `kept` (B,) first of them, (B, P, D). Keys and
        values go into the cache's rings.
        """
        inputs = self._input(self.attention_norm, x)
        query = rotate(self.attention.query(inputs), at.cos, at.sin)
        key, value = self.attention.key_value(inputs)
        keys, values = cache.extend(at, rotate(key, at.cos, at.sin), value)
        branch = self.attention.out_proj(attend_cached(query, keys, values, at.bias))
        x = self._residual(self.attention_norm, x, branch)
        conv_left = cache.conv.index_select(0, at.rows)
        if self.conv is not None and self.conv_norm is not None:
            branch, joined = self.conv.step(self._input(self.conv_norm, x), valid, conv_left)
            conv_left = last_valid(joined, kept, self.conv.context)
            x = self._residual(self.conv_norm, x, branch)
        return self._residual(self.ffn_norm, x, self.ffn(self._input(self.ffn_norm, x))), conv_left


class FrameMerge(nn.Module):
    """Two neighbouring frames into one: (B, T4, D) → (B, T8, D)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.proj = nn.Linear(2 * d_model, d_model)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x = x * length_mask(lengths, x.shape[1]).unsqueeze(-1)
        x = F.pad(x, (0, 0, 0, x.shape[1] % 2))
        merged: Tensor = self.proj(x.reshape(x.shape[0], -1, 2 * x.shape[2]))
        return merged, halved(lengths)


class Encoder(nn.Module):
    """Stem, blocks at 25 Hz with a phone CTC on top of them, merge, blocks at 12.5 Hz.

    The lower phone posteriors are fed back into the stream (self-conditioned CTC, Nozaki and Komatsu 2021); the upper
    phone CTC sees the last 25 Hz frame and the last block's output laid over it.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = ConvStem4(config.n_mels, config.stem_channels, config.d_model)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_layers))
        self.merge = FrameMerge(config.d_model) if config.downsample_after is not None else None
        self.final_norm = nn.LayerNorm(config.d_model) if config.norm == "pre" else nn.Identity()
        self.phone_norm: nn.Module | None = None
        if config.phone_vocab_size:
            self.phone_norm = nn.LayerNorm(config.d_model)
            self.lower_phone_head = nn.Linear(config.d_model, config.phone_vocab_size)
            self.phone_feedback = nn.Linear(config.phone_vocab_size, config.d_model)
            if self.merge is not None:
                self.upper_phone_norm = nn.LayerNorm(config.d_model)

    @property
    def _layers(self) -> tuple[EncoderBlock, ...]:
        return cast(tuple[EncoderBlock, ...], tuple(self.blocks))

    def _phones(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert self.phone_norm is not None
        logits = self.lower_phone_head(self.phone_norm(x))
        return x + self.phone_feedback(torch.softmax(logits.float(), dim=-1).to(x.dtype)), logits

    def _over(self, below: Tensor | None, hidden: Tensor) -> Tensor | None:
        """The merged frames' output laid over the 25 Hz frames below, for the upper phone CTC."""
        if self.phone_norm is None:
            return None
        if below is None:
            return hidden
        repeated = hidden.repeat_interleave(2, dim=1)[:, : below.shape[1]]
        out: Tensor = self.upper_phone_norm(below + repeated)
        return out

    def forward(self, features: Tensor, lengths: Tensor, chunk: ChunkMask | None = None) -> EncoderOutput:
        """Encode whole utterances.

        Args:
            features: (B, T, F) normalised log-mel; frames beyond a row's length are ignored.
            lengths: (B,) feature frames.
            chunk: attend and convolve in chunks as a stream does, or None for full context.
        """
        return at_once(self.parts(features, lengths, chunk))

    def parts(self, features: Tensor, lengths: Tensor, chunk: ChunkMask | None = None) -> Parts[EncoderOutput]:
        """`forward` part by part: the stem, then one block after the other."""
        config = self.config
        x, frames = self.stem(features, lengths)
        phone_frames = frames
        if torch.is_autocast_enabled(x.device.type):
            # Training only: a residual stream in fp32 costs a fifth of a CPU step in conversions.
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if config.positions == "sinusoidal":
            x = x + sinusoids(x.shape[1], config.d_model, device=x.device).to(x.dtype)
        mask, valid, rotary = self._context(x, frames, chunk)
        below: Tensor | None = None
        lower_phone_logits: Tensor | None = None
        for index, block in enumerate(self._layers):
            yield
            if self.merge is not None and index == config.downsample_after:
                below = x
                x, frames = self.merge(x, frames)
                chunk = None if chunk is None else chunk.halved()
                mask, valid, rotary = self._context(x, frames, chunk)
            x = block(x, mask, valid, rotary, None if chunk is None else chunk.chunk)
            if self.phone_norm is not None and index + 1 == config.phone_layer:
                x, lower_phone_logits = self._phones(x)
        hidden = self.final_norm(x)
        return EncoderOutput(hidden, frames, self._over(below, hidden), phone_frames, lower_phone_logits)

    def _context(
        self, x: Tensor, lengths: Tensor, chunk: ChunkMask | None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        frames = x.shape[1]
        valid = length_mask(lengths, frames)
        mask = valid[:, None, None, :]
        if chunk is not None:
            mask = mask & chunk.visible(frames, x.device)
        rotary = None
        if self.config.positions == "rotary":
            heads = self.config.n_heads
            rotary = rotary_tables(frames, heads, self.config.d_model // heads, like=x)
        return mask, valid, rotary

    def forward_chunk(
        self,
        features: Tensor,
        lengths: Tensor,
        cache: EncoderCache,
        rows: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> EncoderOutput:
        """Encode the next chunk of B streams; without look-ahead it equals `forward` under `ChunkMask(chunk, left)`.

        With look-ahead, the frames after the `kept` ones are heard and given again with the next chunk: the kept ones
        see what comes, and nothing that was computed without its own future stays in the cache.

        Args:
            features: (B, T, F), T a multiple of 8 but for a stream's last chunk.
            lengths: (B,) feature frames that count; a row that is not full ends its stream, or is cut at an endpoint
                at a multiple of 8.
            cache: the streams' left context, which moves on. A step that raises has moved none.
            rows: (B,) the streams' rows of the cache, each once. None for the first B.
            kept: (B,) feature frames, of those that count the first, that the output and the cache end with; all of
                them, or a multiple of 8. None keeps all.
        """
        assert self.config.positions == "rotary", "sinusoidal positions grow with the stream"
        rows = torch.arange(len(lengths)) if rows is None else rows
        kept = lengths if kept is None else kept
        valid = length_mask(lengths, features.shape[1]).unsqueeze(-1)
        x, stem1, stem2 = self.stem.step(features * valid, lengths, cache.stem1[rows], cache.stem2[rows], kept)
        frames, kept_frames = halved(halved(lengths)), halved(halved(kept))
        phone_frames = kept_frames
        position, filled = cache.position[rows], cache.filled[rows]
        at, mask = self._window(x, frames, cache.layers[0], rows, position, filled)
        below: Tensor | None = None
        lower_phone_logits: Tensor | None = None
        convs = []
        for index, block in enumerate(self._layers):
            if self.merge is not None and index == self.config.downsample_after:
                below = x
                x, frames = self.merge(x, frames)
                kept_frames = halved(kept_frames)
                at, mask = self._window(x, frames, cache.layers[index], rows, position // 2, filled // 2)
            x, conv = block.step(x, mask, kept_frames, cache.layers[index], at)
            convs.append(conv)
            if self.phone_norm is not None and index + 1 == self.config.phone_layer:
                x, lower_phone_logits = self._phones(x)
        hidden = self.final_norm(x)
        output = EncoderOutput(hidden, kept_frames, self._over(below, hidden), phone_frames, lower_phone_logits)
        cache.advance(rows, phone_frames, stem1, stem2, convs)
        return output

    def _window(
        self, x: Tensor, lengths: Tensor, cache: LayerCache, rows: Tensor, position: Tensor, filled: Tensor
    ) -> tuple[WindowStep, Tensor | None]:
        frames, head_dim = x.shape[1], self.config.d_model // self.config.n_heads
        at = WindowStep.of(rows, position, filled, lengths, frames=frames, ring=cache.key.shape[2], head_dim=head_dim)
        return at, None if bool((lengths >= frames).all()) else length_mask(lengths, frames)
