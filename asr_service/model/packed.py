"""Linear layers for inference: weights packed once for oneDNN, and products in bf16 where the CPU is faster at them.

On AMD's Zen 5 and on Intel with AMX, packed fp32 products are twice as fast as PyTorch's own, packed bf16 ones four
times. On Intel without AMX (Sapphire Rapids with its tiles masked) the encoder takes 1.0 to 1.5 times as long in bf16
as in fp32: avx512_bf16 gains nothing there that converting does not cost. What lies between the products stays in fp32:
on the others converting costs next to nothing, and element-wise work is no faster in bf16.
"""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_service.model.attention import MultiHeadAttention
from asr_service.model.layers import FeedForward
from asr_service.model.precision import DTYPES, Precision, has_onednn

Model = TypeVar("Model", bound=nn.Module)


class PackedLinear(nn.Module):
    """x·Wᵀ + b, then an activation, fused. Inference only: it has no gradients and no parameters."""

    def __init__(
        self, linear: nn.Linear, dtype: torch.dtype, *, activation: str = "none", out: torch.dtype = torch.float32
    ) -> None:
        """`activation`: `none`, `relu` or `gelu`; `out`: the type of what comes out."""
        super().__init__()
        weight, bias = linear.weight.detach(), cast(Tensor | None, linear.bias)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous())  # noqa: SLF001
        self._bias = None if bias is None else bias.detach().to(dtype)
        self._dtype, self._out, self._activation = dtype, out, activation
        self._algorithm = "none" if activation == "gelu" else ""  # the exact GELU, not its tanh approximation

    def forward(self, x: Tensor) -> Tensor:
        """(…, K) → (…, N)."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            x.to(self._dtype), self._weight, self._bias, self._activation, [], self._algorithm
        )
        return out.to(self._out)


def _unchanged(x: Tensor) -> Tensor:
    return x


def packed(model: Model, precision: Precision) -> Model:
    """A copy of `model` for inference, whose linear layers are packed; it shares the other weights with it.

    Where PyTorch lacks oneDNN, the layers stay as they are.
    """
    served = copy.deepcopy(model, {id(weight): weight for weight in [*model.parameters(), *model.buffers()]})
    if not has_onednn():
        return served
    dtype = DTYPES[precision]
    for module in list(served.modules()):
        if isinstance(module, FeedForward):
            activation = "relu" if module.activation is F.relu else "gelu"
            module.linear1 = PackedLinear(module.linear1, dtype, activation=activation, out=dtype)  # type: ignore[assignment]
            module.activation = _unchanged  # type: ignore[assignment]
        if isinstance(module, MultiHeadAttention) and dtype != torch.float32:
            module.product_dtype = dtype
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, PackedLinear(child, dtype))
    return served
