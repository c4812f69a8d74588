"""Weights that a run starts from, `--init-from`: a bundle, or a checkpoint of another run."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from asr_service.model.bundle import TOKENIZER_FILE, load_bundle
from asr_service.model.config import TransformerConfig
from asr_service.tokenizer import WordPieces
from training.average import BEST_FOLDER
from training.checkpoint import load_checkpoint


@dataclass(frozen=True, slots=True)
class Initial:
    """What is taken over: weights, the front end's statistics, (F,) each, and the tokenizer they were trained with."""

    source: Path
    model_config: TransformerConfig
    weights: dict[str, Tensor]
    mean: Tensor
    std: Tensor
    tokenizer: Path


def read_initial(path: Path) -> Initial:
    """Read a bundle's directory, or a checkpoint file (its averaged weights), whose run's tokenizer lies beside it.

    Raises BundleError or ValueError that names the file which is missing or cannot be read.
    """
    if path.is_dir():
        bundle = load_bundle(path)
        return Initial(
            source=path,
            model_config=bundle.model.config,
            weights=bundle.model.state_dict(),
            mean=bundle.front_end.mean,
            std=bundle.front_end.std,
            tokenizer=path / TOKENIZER_FILE,
        )
    if not path.is_file():
        raise ValueError(f"{path}: neither a bundle's directory nor a checkpoint")
    state = load_checkpoint(path)
    run = path.parent.parent if path.parent.name == BEST_FOLDER else path.parent
    if not (run / TOKENIZER_FILE).is_file():
        raise ValueError(f"{path}: the run's {TOKENIZER_FILE} is missing beside it")
    return Initial(
        source=path,
        model_config=TransformerConfig.from_dict(state["model_config"]),
        weights=state["average"],
        mean=state["cmvn"]["mean"],
        std=state["cmvn"]["std"],
        tokenizer=run / TOKENIZER_FILE,
    )


def check_shape(source: Path, theirs: TransformerConfig, ours: TransformerConfig) -> None:
    """Raises ValueError that names every difference but dropout; `theirs` is of `source`, `ours` the recipe's."""
    there, here = theirs.to_dict(), ours.to_dict()
    different = [
        f"{name} is {here[name]!r} in the recipe, {there[name]!r} there"
        for name in here
        if "drop" not in name and here[name] != there[name]
    ]
    if different:
        raise ValueError(f"{source}: a model of another shape: {'; '.join(different)}")


def take_tokenizer(initial: Initial, config: TransformerConfig, target: Path) -> None:
    """Copy the tokenizer into the run's folder.

    Raises ValueError that names every difference when the recipe's model is of another shape (dropout may differ), or
    when the run already has another tokenizer: its tokens would get the outputs of others.
    """
    check_shape(initial.source, initial.model_config, config)
    if not target.exists():
        shutil.copyfile(initial.tokenizer, target)
    elif json.loads(target.read_text()) != json.loads(initial.tokenizer.read_text()):
        raise ValueError(f"{initial.source}: its tokenizer is not that of {target}: {_difference(target, initial)}")


def _difference(target: Path, initial: Initial) -> str:
    mine, other = WordPieces.load(target).pieces, WordPieces.load(initial.tokenizer).pieces
    if len(mine) != len(other):
        return f"{len(mine)} tokens here, {len(other)} there"
    for index, (here, there) in enumerate(zip(mine, other, strict=True)):
        if here != there:
            return f"token {index} is {here!r} here, {there!r} there"
    return "the same tokens by other merges"
