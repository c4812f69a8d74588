"""What a stream carries from chunk to chunk, for many streams at once: explicit, preallocated, reset row by row.

Dimensions: S streams (rows), B rows of a step, C new frames of a step, W left-context frames of a layer, R frames of a
ring, H heads, d = D/H, P convolution context, F mel bins.

Keys and values lie in rings: a step writes its C frames over the oldest and moves nothing, for softmax does not ask in
which order keys come. R is W + C, so frames that are only looked at, and written again by the next step, push none out
that is still needed. Keys are rotated once, to their position in the stream; its angles are exact however long it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asr_service.model.attention import MASKED
from asr_service.model.config import TransformerConfig
from asr_service.model.positions import rotary_angles_at


@dataclass(slots=True)
class LayerCache:
    """Left context of one encoder block: `key`, `value` (S, H, R, d), rings; `conv` (S, P, D)."""

    key: Tensor
    value: Tensor
    conv: Tensor

    def extend(self, at: WindowStep, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write a step's keys and values, (B, H, C, d), and return the rows' whole rings, (B, H, R, d)."""
        heads = torch.arange(key.shape[1], device=key.device).view(1, -1, 1)
        place = (at.rows.view(-1, 1, 1), heads, at.places.unsqueeze(1))
        self.key[place] = key.to(self.key.dtype)
        self.value[place] = value.to(self.value.dtype)
        return self.key.index_select(0, at.rows), self.value.index_select(0, at.rows)


@dataclass(frozen=True, slots=True)
class WindowStep:
    """Where a step's frames go in the rings of one frame rate, and what they see there.

    Attributes:
        rows: (B,) rows of the cache.
        places: (B, C) of the new frames in the ring.
        bias: (B, 1, 1, R), to be added to the scores: 0 where a frame of the ring is seen. None where all are.
        cos, sin: (B, 1, C, d/2) of the new frames' positions.
    """

    rows: Tensor
    places: Tensor
    bias: Tensor | None
    cos: Tensor
    sin: Tensor

    @staticmethod
    def of(
        rows: Tensor, position: Tensor, filled: Tensor, lengths: Tensor, *, frames: int, ring: int, head_dim: int
    ) -> WindowStep:
        """`frames` new ones from `position` (B,) on, of which `lengths` (B,) count, after `filled` (B,) to be seen."""
        start, slots = position.unsqueeze(1), torch.arange(ring, device=rows.device)
        positions = start + torch.arange(frames, device=rows.device)
        last = start + frames - 1
        held = last - (last - slots) % ring  # the position that each place of the ring holds once they are written
        seen = (held >= start - filled.unsqueeze(1)) & (held < start + lengths.unsqueeze(1))
        bias = None if bool(seen.all()) else torch.zeros(seen.shape).masked_fill_(~seen, MASKED)[:, None, None, :]
        cos, sin = rotary_angles_at(positions, head_dim)
        return WindowStep(rows, positions % ring, bias, cos.unsqueeze(1), sin.unsqueeze(1))


@dataclass(slots=True)
class EncoderCache:
    """All layers' left context, the stem's last frames, and how much of the windows is filled.

    Attributes:
        stem1, stem2: (S, 1, F) and (S, channels, 1, F/2).
        position: (S,) frames of the stream so far, at the stem's rate; a layer after the downsampling has half of them.
        filled: (S,) of them still to be seen: at most `window`.
    """

    layers: list[LayerCache]
    stem1: Tensor
    stem2: Tensor
    position: Tensor
    filled: Tensor
    window: int

    @staticmethod
    def empty(
        config: TransformerConfig,
        streams: int,
        left_frames: int,
        step_frames: int,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> EncoderCache:
        """`left_frames` of left context and the longest step with its look-ahead, in 40 ms frames, even.

        `dtype`: of keys and values.
        """
        head_dim = config.d_model // config.n_heads
        context = (config.conv_kernel - 1) // 2 if config.conv_kernel else 0
        layers = []
        for index in range(config.encoder_layers):
            merged = config.downsample_after is not None and index >= config.downsample_after
            ring = (left_frames + step_frames) // 2 if merged else left_frames + step_frames
            shape = (streams, config.n_heads, ring, head_dim)
            conv = torch.zeros(streams, context, config.d_model)
            layers.append(LayerCache(torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype), conv))
        half_mels = (config.n_mels + 1) // 2
        return EncoderCache(
            layers=layers,
            stem1=torch.zeros(streams, 1, config.n_mels),
            stem2=torch.zeros(streams, config.stem_channels, 1, half_mels),
            position=torch.zeros(streams, dtype=torch.long),
            filled=torch.zeros(streams, dtype=torch.long),
            window=left_frames,
        )

    def _tensors(self) -> list[Tensor]:
        layered = [tensor for layer in self.layers for tensor in (layer.key, layer.value, layer.conv)]
        return [*layered, self.stem1, self.stem2, self.position, self.filled]

    def begin(self, row: int, after: EncoderCache) -> None:
        """A new stream in a row, which goes on where the one stream of `after` is.

        Every value is overwritten, so nothing of the stream before is left.
        """
        for tensor, begun in zip(self._tensors(), after._tensors(), strict=True):
            tensor[row] = begun[0]

    def advance(self, rows: Tensor, kept: Tensor, stem1: Tensor, stem2: Tensor, convs: Sequence[Tensor]) -> None:
        """End a step of `rows` (B,), of which `kept` (B,) frames at the stem's rate are for good.

        Until here nothing of the stream has changed: what a step that failed wrote into rings, the next writes over.
        """
        self.stem1[rows] = stem1
        self.stem2[rows] = stem2
        for layer, conv in zip(self.layers, convs, strict=True):
            layer.conv[rows] = conv
        self.position[rows] += kept
        self.filled[rows] = torch.clamp(self.filled[rows] + kept, max=self.window)


def last_valid(joined: Tensor, valid: Tensor, window: int) -> Tensor:
    """Of each row's (B, W + …, D) joined frames, the `window` that end at its last valid one, (B, W, D).

    `joined` holds W frames of before and then new ones, of which the first `valid` (B,) count.
    """
    begin = torch.arange(len(valid), device=joined.device) * joined.shape[1] + valid
    index = begin.unsqueeze(1) + torch.arange(window, device=joined.device)
    return joined.flatten(0, 1).index_select(0, index.flatten()).view(*index.shape, joined.shape[2])
