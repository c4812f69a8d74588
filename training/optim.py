"""Optimisers and schedule: Muon for the matrices inside the blocks, AdamW for everything else."""

from __future__ import annotations

import torch
from torch import nn

from training.distributed import ALONE, Processes
from training.muon import Muon
from training.recipe import OptimConfig


def learning_rate_factor(step: int, config: OptimConfig) -> float:
    """Linear warm-up, plateau, linear decay to zero over the last `decay_fraction` of `max_steps`."""
    decay_steps = max(1, round(config.max_steps * config.decay_fraction))
    return max(0.0, min(1.0, (step + 1) / config.warmup_steps, (config.max_steps - step) / decay_steps))


def make_optimizers(model: nn.Module, config: OptimConfig, processes: Processes = ALONE) -> list[torch.optim.Optimizer]:
    """One or two optimisers that together hold every parameter once.

    Muon replaces a matrix's momentum by the nearest orthogonal matrix, so every direction of a weight learns at the
    same pace; it is meant for the linear layers inside. Biases, norms, embeddings, convolutions and heads go to AdamW,
    without weight decay for vectors.
    """
    matrices, weights, vectors = [], [], []
    for name, parameter in model.named_parameters():
        inside = ".blocks." in f".{name}" or ".merge." in name
        if config.optimizer == "muon" and inside and parameter.dim() == 2:
            matrices.append(parameter)
        elif parameter.dim() >= 2:
            weights.append(parameter)
        else:
            vectors.append(parameter)
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)]
    if matrices:
        optimizers.append(Muon(matrices, lr=config.lr, weight_decay=config.weight_decay, processes=processes))
    return optimizers
