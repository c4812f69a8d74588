"""The precision of a model's matrix products: what this CPU can do, and what it is faster at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from asr_service.errors import ConfigError

Precision = Literal["fp32", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def supported_precision(wanted: str) -> Precision:
    """`fp32` or `bf16` as wanted; for `auto`, bf16 where the CPU is faster at it and PyTorch has oneDNN.

    Raises ConfigError for bf16 where there are no products in it.
    """
    if wanted == "bf16" and not has_bf16():
        raise ConfigError(
            "engine.precision is 'bf16', which needs a CPU with AVX-512 or AVX-NE-CONVERT and a PyTorch with oneDNN; "
            "'auto' takes what there is",
            field="engine.precision",
        )
    return "bf16" if wanted == "bf16" or (wanted == "auto" and faster_in_bf16()) else "fp32"


def faster_in_bf16() -> bool:
    """Whether this CPU multiplies matrices faster in bf16 than in fp32."""
    return has_bf16() and _is_made_for_bf16(torch.cpu.get_capabilities())


def has_onednn() -> bool:
    """Whether PyTorch was built with oneDNN, which packs weights."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def has_bf16() -> bool:
    """Whether weights can be packed for products in bf16 here."""
    return has_onednn() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


def _is_made_for_bf16(cpu: Mapping[str, object]) -> bool:
    """Told from what the CPU is, not timed: all processes of a machine are to give the same words."""
    if cpu.get("amx_bf16"):
        return True
    return bool(cpu.get("avx512_bf16")) and not str(cpu.get("cpu_name", "")).startswith("Intel")
