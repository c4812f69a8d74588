"""Averaged weights of the looks at dev: the best few are kept, and their mean is what a bundle ships.

Each file is a checkpoint without the optimisers: `average` (the moving average of the weights), `dev` (its losses).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from asr_service.model.bundle import load_bundle
from training.checkpoint import load_checkpoint, write_durably

BEST_FOLDER = "best"


def keep_best(folder: Path, state: dict[str, Any], keep: int) -> None:
    """Add `state` to the run's best, and drop what is not among the `keep` of the lowest total dev loss.

    The loss is in the name, for choosing must not read hundreds of megabytes: step-0001500-dev-1.234567.pt.
    """
    best = folder / BEST_FOLDER
    best.mkdir(parents=True, exist_ok=True)
    for same_step in best.glob(f"step-{state['step']:07d}-dev-*.pt"):
        same_step.unlink()  # of a run that was killed after this look and came here again
    write_durably(best / f"step-{state['step']:07d}-dev-{state['dev']['total']:.6f}.pt", state)
    for worse in best_paths(folder)[keep:]:
        worse.unlink()


def best_paths(folder: Path) -> list[Path]:
    """The run's best averaged weights, lowest dev loss first."""
    return sorted((folder / BEST_FOLDER).glob("step-*-dev-*.pt"), key=lambda path: float(path.stem.split("-dev-")[1]))


def mean_of_averages(paths: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The first file's state, and the mean of the `average` weights of all of them (Izmailov et al. 2018).

    All but the first may be bundles, whose only weights are averages. Raises ValueError naming one of another shape.
    """
    first = load_checkpoint(paths[0])
    total = {name: value.double() for name, value in first["average"].items()}
    for path in paths[1:]:
        weights = load_bundle(path).model.state_dict() if path.is_dir() else load_checkpoint(path)["average"]
        if {name: value.shape for name, value in weights.items()} != {name: sum_.shape for name, sum_ in total.items()}:
            raise ValueError(f"{path}: a model of another shape than {paths[0]}")
        for name, value in weights.items():
            total[name] += value
    return first, {name: (value / len(paths)).float() for name, value in total.items()}
