"""Muon (Jordan 2024), with matrices of one shape orthogonalised together.

`torch.optim.Muon` takes them one by one. Batched, the same products are somewhat faster on a CPU, and on a GPU a
thousand small launches become fifty. Several processes share the matrices out and exchange the results (Liu et al.
2025, section 2.3): each would do the same work otherwise, a sixth of a step of the shipped model. Dimensions: N
matrices of a shape, R rows, C columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from training.distributed import ALONE, Processes
from training.precision import compute_dtype

# Quintic Newton–Schulz of Jordan 2024: after the iterations singular values lie near 1 (0.7 to 1.2).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# One less than Jordan's five, for the closer bound that the iteration begins with.
ITERATIONS = 4


def orthogonalised(matrices: Tensor, steps: int) -> Tensor:
    """(N, R, C) → (N, R, C) of the same type, each near the nearest orthogonal matrix of its kind.

    X ← F·X with F = a·I + b·G + c·G² and G = X·Xᵀ; of tall matrices G = Xᵀ·X, on the other side, so that nothing is
    transposed. It needs ‖X‖₂ ≤ 1, and an iteration makes small singular values 3.4 times as large. Jordan divides by
    ‖X‖_F, which is √r·‖X‖₂ where the r singular values are alike; ‖G‖_F^½ is an upper bound as well, there r^¼·‖X‖₂,
    and at hand. Where one side is twice the other or more, two iterations are made of small matrices alone, for the
    second one's G is F·G·F: a quarter of the work saved at four to one. Not more than two, for the powers of G that a
    third would stand on lose small singular values in bf16.
    """
    x = matrices
    rows, columns = x.shape[1:]
    together = 2 if max(rows, columns) >= 2 * min(rows, columns) else 1
    for step in range(0, steps, together):
        gram = x.mT @ x if rows > columns else x @ x.mT
        if step == 0:
            bound = gram.norm(dim=(1, 2), keepdim=True, dtype=torch.float32).sqrt().clamp(min=1e-7).to(x.dtype)
            x, gram = x / bound, gram / bound / bound
        factor = _factor(gram)
        if together == 2 and step + 1 < steps:
            factor = _factor(factor @ gram @ factor) @ factor
        x = x @ factor if rows > columns else factor @ x
    return x


def _factor(gram: Tensor) -> Tensor:
    """a·I + b·G + c·G² of (N, D, D)."""
    a, b, c = COEFFICIENTS
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return factor


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, the same state, and updates as near to orthogonal."""

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, weight_decay: float, processes: Processes = ALONE
    ) -> None:
        super().__init__(
            parameters, lr=lr, weight_decay=weight_decay, ns_steps=ITERATIONS, adjust_lr_fn="match_rms_adamw"
        )
        self._processes = processes

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of the parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                updates = self._updates(parameters, group)
                torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
                # An orthogonal update's entries get the size that AdamW's have (Liu et al. 2025, equation 4).
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.add_(update, alpha=-size)

    def _updates(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        buffers = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            buffers.append(state["momentum_buffer"])
        torch._foreach_lerp_(buffers, gradients, 1.0 - group["momentum"])
        # A stack in the precision of the products is half the bytes of stacks of what it is made of.
        device = buffers[0].device
        dtype = compute_dtype("auto", device)  # whatever the recipe's: four iterations are no closer in fp32
        nesterov = torch.empty(len(buffers), *buffers[0].shape, dtype=dtype, device=device)
        ahead = torch._foreach_lerp(gradients, buffers, group["momentum"])  # noqa: SLF001
        torch._foreach_copy_(list(nesterov), ahead)
        return list(self._orthogonalised(nesterov, group["ns_steps"]).unbind())

    def _orthogonalised(self, matrices: Tensor, steps: int) -> Tensor:
        """The same as `orthogonalised`, by all processes together."""
        processes = self._processes
        if processes.world == 1:
            return orthogonalised(matrices, steps)
        share = -(-len(matrices) // processes.world)
        own = matrices[processes.rank * share : (processes.rank + 1) * share]
        done = torch.zeros(share, *matrices.shape[1:], dtype=matrices.dtype, device=matrices.device)
        if len(own):
            done[: len(own)] = orthogonalised(own, steps)
        return processes.rows(done)[: len(matrices)]
