"""The compute dtype of a training step: what the recipe wants, or what the device multiplies matrices faster in."""

from __future__ import annotations

import functools
from typing import Literal

import torch

DtypeName = Literal["auto", "bfloat16", "float32"]


@functools.cache
def compute_dtype(wanted: DtypeName, device: torch.device) -> torch.dtype:
    """`torch.bfloat16` or `torch.float32`; for `auto`, bfloat16 where `device` has instructions for it.

    A CPU that has none computes them all the same: at an eighth of float32's speed in a linear layer, a twenty-eighth
    in a convolution (AMD Zen 3, torch 2.13).
    """
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bfloat16" else torch.float32
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        cpu = torch.cpu.get_capabilities()
        has = bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16"))
    return torch.bfloat16 if has else torch.float32
