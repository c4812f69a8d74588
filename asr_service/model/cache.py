"""What a stream carries from chunk to chunk, for many streams at once: explicit, preallocated, reset row by row.

Dimensions: S streams (rows), W left-context frames of a layer, H heads, d = D/H, P convolution context, F mel bins.

Keys are cached unrotated and rotated by their place in the window, so positions never grow with the stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asr_service.model.config import TransformerConfig


@dataclass(slots=True)
class LayerCache:
    """Left context of one encoder block: `key`, `value` (S, H, W, d), `conv` (S, P, D)."""

    key: Tensor
    value: Tensor
    conv: Tensor


@dataclass(slots=True)
class EncoderCache:
    """All layers' left context, the stem's last frames, and how much of the windows is filled.

    Attributes:
        stem1, stem2: (S, 1, F) and (S, channels, 1, F/2).
        filled: (S,) frames seen so far at the stem's rate, capped at the window; a layer after the downsampling has
            half of them.
    """

    layers: list[LayerCache]
    stem1: Tensor
    stem2: Tensor
    filled: Tensor

    @staticmethod
    def empty(config: TransformerConfig, streams: int, left_frames: int) -> EncoderCache:
        """`left_frames`: left context in 40 ms frames, even."""
        head_dim = config.d_model // config.n_heads
        context = (config.conv_kernel - 1) // 2 if config.conv_kernel else 0
        layers = []
        for index in range(config.encoder_layers):
            merged = config.downsample_after is not None and index >= config.downsample_after
            window = left_frames // 2 if merged else left_frames
            shape = (streams, config.n_heads, window, head_dim)
            layers.append(
                LayerCache(torch.zeros(shape), torch.zeros(shape), torch.zeros(streams, context, config.d_model))
            )
        half_mels = (config.n_mels + 1) // 2
        return EncoderCache(
            layers=layers,
            stem1=torch.zeros(streams, 1, config.n_mels),
            stem2=torch.zeros(streams, config.stem_channels, 1, half_mels),
            filled=torch.zeros(streams, dtype=torch.long),
        )

    def _tensors(self) -> list[Tensor]:
        layered = [tensor for layer in self.layers for tensor in (layer.key, layer.value, layer.conv)]
        return [*layered, self.stem1, self.stem2, self.filled]

    def reset(self, row: int) -> None:
        """Make a row as new. Every value is overwritten, so nothing of the stream before is left."""
        for tensor in self._tensors():
            tensor[row] = 0

    def rows(self, index: Tensor) -> EncoderCache:
        """A copy that holds only these rows: the batch of one step."""
        return EncoderCache(
            layers=[LayerCache(x.key[index], x.value[index], x.conv[index]) for x in self.layers],
            stem1=self.stem1[index],
            stem2=self.stem2[index],
            filled=self.filled[index],
        )

    def store(self, index: Tensor, batch: EncoderCache) -> None:
        """Write a step's rows back."""
        for whole, part in zip(self._tensors(), batch._tensors(), strict=True):
            whole[index] = part.to(whole.dtype)


def last_valid(joined: Tensor, valid: Tensor, window: int) -> Tensor:
    """Of each row's (B, …, W + C, …) joined frames along dim -2, the `window` that end at its last valid one.

    `joined` holds W cached frames and then C new ones, of which the first `valid` (B,) count.
    """
    index = valid.view(-1, *[1] * (joined.dim() - 1)) + torch.arange(window, device=joined.device).view(-1, 1)
    return joined.gather(-2, index.expand(*joined.shape[:-2], window, joined.shape[-1]))
