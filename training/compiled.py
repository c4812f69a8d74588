"""`torch.compile` for training. It is for GPUs, not measured there yet: on a CPU plain operations are faster."""

from __future__ import annotations

import torch

from asr_service.model.convolution import ConvolutionModule
from asr_service.model.transformer import Transformer

# With and without chunks, with and without gradients; far fewer than there are lengths.
GRAPHS = 64


def compile_blocks(model: Transformer) -> None:
    """Compile each of the encoder's blocks, in place, for sequences of any length; names of weights stay.

    But for the depthwise filters: the strides of a convolution's backward pass become constants of its graph, and there
    would be one for each length.
    """
    torch._dynamo.config.recompile_limit = GRAPHS  # noqa: SLF001
    for module in model.encoder.modules():
        if isinstance(module, ConvolutionModule):
            module.depthwise = torch.compiler.disable(module.depthwise)  # type: ignore[method-assign, no-untyped-call]
    for block in model.encoder.blocks:
        block.compile(dynamic=True)
