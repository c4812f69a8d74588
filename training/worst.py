"""Which batches of an epoch need the most memory: tried before the first update, they end a run that would end later.

After `scan_pessimistic_batches_for_oom` of icefall. B utterances, T seconds of the longest, U targets of the most.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Sequence

import torch

from training.dataset import Example


def worst_batches(batches: Sequence[Sequence[int]], examples: Sequence[Example]) -> dict[str, Sequence[int]]:
    """The worst of all batches by what is the largest in it, and the longest in padded seconds of each bucket.

    By name: frames B·T, attention scores B·T², decoder scores B·U², CTC lattice B·T·U; a bucket is an octave of T,
    "up to 4 s" for batches of more than 2 s.
    """

    def shape(batch: Sequence[int]) -> tuple[int, float, int]:
        chosen = [examples[i] for i in batch]
        tokens = max(max(len(example.tokens), len(example.phones)) for example in chosen)
        return len(batch), max(example.duration_s for example in chosen), tokens

    shapes = [shape(batch) for batch in batches]
    measures = {
        "frames": [b * t for b, t, _ in shapes],
        "attention": [b * t**2 for b, t, _ in shapes],
        "decoder": [float(b * u**2) for b, _, u in shapes],
        "lattice": [b * t * u for b, t, u in shapes],
    }
    worst = {name: batches[values.index(max(values))] for name, values in measures.items()}
    for number in sorted(range(len(batches)), key=lambda number: measures["frames"][number]):
        worst[f"up to {2.0 ** math.ceil(math.log2(shapes[number][1])):g} s"] = batches[number]
    return worst


def peak_memory_gb(device: torch.device) -> float:
    """The most this process has held so far: on the GPU, or resident on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
