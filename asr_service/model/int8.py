"""Weights in one byte each: symmetric, with a scale for each row of a matrix (Jacob et al. 2018, weights alone).

A file half as large as one in fp16, for models that would not be small otherwise. It is read back to fp32 before
anything is computed, so it costs nothing later. Dimensions: R rows, one an output of the layer; C inputs of each.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ".scale"
LARGEST = 127
# Of shorter rows (biases, depthwise filters) the scales would be a good part of the file.
SHORTEST_ROW = 16


def quantised(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(R, ...) tensors with rows of at least `SHORTEST_ROW` values as int8, with a scale (R,) beside; others in fp16.

    A value is off by at most half a scale, which is a 127th of the largest of its row.
    """
    stored: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim < 2 or weight[0].numel() < SHORTEST_ROW:
            stored[name] = weight.detach().to(torch.float16).contiguous()
            continue
        rows = weight.detach().float().flatten(1)
        scale = rows.abs().amax(dim=1) / LARGEST
        whole = torch.round(rows / scale.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1))
        stored[name] = whole.to(torch.int8).view(weight.shape).contiguous()
        stored[name + SCALE] = scale
    return stored


def restored(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All weights of a file in fp32, whether it holds int8 or floating-point numbers.

    Raises ValueError that names an int8 tensor without a scale for each row, or a scale without such a tensor.
    """
    weights: dict[str, Tensor] = {}
    scales = {name: stored[name] for name in stored if name.endswith(SCALE)}
    for name in stored.keys() - scales.keys():
        weight = stored[name]
        if weight.dtype == torch.int8:
            scale = scales.pop(name + SCALE, None)
            if scale is None or weight.ndim < 2 or scale.shape != weight.shape[:1]:
                raise ValueError(f"{name} is int8, but {name}{SCALE} with one value a row is missing")
            weights[name] = (weight.float().flatten(1) * scale.float().unsqueeze(1)).view(weight.shape)
        else:
            weights[name] = weight.float()
    if scales:
        raise ValueError(f"{min(scales)} belongs to no int8 weight")
    return weights
