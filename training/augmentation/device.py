"""From the host, where everything is drawn, to the device where it is done."""

from __future__ import annotations

import torch
from torch import Tensor


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """The tensor there. Copied to a GPU from pinned memory, and in its turn: the copy of ordinary memory would wait
    until the GPU has done all that it was asked before.
    """
    if values.device.type == device.type:
        return values
    return values.pin_memory().to(device, non_blocking=True)
