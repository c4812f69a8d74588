"""`torch.compile` for training. It is for GPUs, not measured there yet: on a CPU plain operations are faster."""

from __future__ import annotations

import torch

from asr_service.model.transformer import Transformer

# In the backward pass, strides that depend on a batch's length become constants: a graph for many of the lengths.
GRAPHS = 64


def compile_blocks(model: Transformer) -> None:
    """Compile each of the encoder's blocks, in place, for sequences of any length; names of weights stay."""
    torch._dynamo.config.recompile_limit = GRAPHS  # noqa: SLF001
    for block in model.encoder.blocks:
        block.compile(dynamic=True)
