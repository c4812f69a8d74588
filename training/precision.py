"""The compute dtype of a training step: what the recipe wants, or what the device multiplies matrices faster in."""

from __future__ import annotations

import functools
from typing import Literal

import torch

from asr_service.model.precision import faster_in_bf16

DtypeName = Literal["auto", "bfloat16", "float32"]


@functools.cache
def compute_dtype(wanted: DtypeName, device: torch.device) -> torch.dtype:
    """`torch.bfloat16` or `torch.float32`; for `auto`, bfloat16 where a GPU has instructions for it or a CPU is faster.

    A CPU that has none computes them all the same: at an eighth of float32's speed in a linear layer, a twenty-eighth
    in a convolution (AMD Zen 3, torch 2.13). One that has them may be slower too: half of float32's speed in a linear
    layer (Intel with AVX-512 but without AMX).
    """
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bfloat16" else torch.float32
    is_gpu = device.type == "cuda"
    faster = torch.cuda.is_bf16_supported(including_emulation=False) if is_gpu else faster_in_bf16()
    return torch.bfloat16 if faster else torch.float32
