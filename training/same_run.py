"""Whether the run in a folder is the one that is asked for: what its checkpoint says of recipe and data, against both.

A run may go on with other weights of its losses, another learning rate or other augmentation. It cannot with another
model, and not with another order of batches: part of an epoch would be seen twice, or never.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.example import Example
from training.finetune_config import FinetuneConfig
from training.recipe import Recipe, StartConfig
from training.recipe_settings import FREE, settings_by_name

# What else decides over the batches, which utterances there are, is seen in the examples.
# The optimisers' state keeps their weight decay.
_FIXED = {"seed", "data.batch_s", "data.short_first_epochs", "optim.optimizer", "optim.weight_decay"}
# Of a finished run: how it went on or ended, not what it learnt.
_FREE_WHEN_FINISHED = FREE | {"optim.keep_best", "optim.max_skipped"}
# Sections that a recipe may do without, at their defaults; what cannot be left out is always kept.
_OPTIONAL = {"start": dataclasses.asdict(StartConfig("any")), "finetune": dataclasses.asdict(FinetuneConfig())}
_WAYS_OUT = "Move it away, name the recipe anew, or begin a new run with its weights (--init-from)"


def identity(recipe: Recipe, examples: Sequence[Example]) -> dict[str, Any]:
    """What a checkpoint keeps of its run."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.index, example.duration_s, example.tokens, example.phones)).encode())
    return {"recipe": dataclasses.asdict(recipe), "examples": digest.hexdigest(), "count": len(examples)}


def check_same(folder: Path, kept: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """What has changed in the recipe since, as lines to show; `kept` and `now` are each an `identity`.

    Raises ValueError that names every change with which the run cannot go on, or says that nothing was kept.
    """
    if kept is None:
        raise ValueError(f"{folder}: its checkpoint does not say of what run it is. {_WAYS_OUT}")
    lines: list[str] = []
    fatal: list[str] = []
    for name, line in _changes(kept["recipe"], now["recipe"]):
        model = name.startswith("model.") and name != "model.dropout"
        found = fatal if model or name in _FIXED else lines
        found.append(line)
    if not fatal and kept["examples"] != now["examples"]:
        fatal.append(
            f"the training utterances or their targets are others ({kept['count']} then, {now['count']} now; "
            "a recording that could not be read may be there by now)"
        )
    if fatal:
        raise ValueError(f"{folder} holds another run: {'; '.join(fatal)}. {_WAYS_OUT}")
    return lines


def check_finished(folder: Path, kept: Mapping[str, Any] | None, recipe: Recipe) -> None:
    """Whether the finished run in `folder` is that of `recipe`; `kept` is its `identity`.

    Raises ValueError that names every other setting, or says that nothing was kept.
    """
    if kept is None:
        raise ValueError(f"{folder}: its checkpoint does not say of what run it is. {_WAYS_OUT}")
    changed = [
        line
        for name, line in _changes(kept["recipe"], dataclasses.asdict(recipe))
        if name not in _FREE_WHEN_FINISHED and not name.startswith("bundle.")  # which is made after the run
    ]
    if changed:
        raise ValueError(f"{folder} holds a finished run of another recipe: {'; '.join(changed)}. {_WAYS_OUT}")


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each setting that differs, but for the recipe's name, and a line that says how."""
    old, new = settings_by_name(_completed(before)), settings_by_name(after)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name) and name != "name":
            yield name, f"{name} was {old.get(name)!r}, is {new.get(name)!r}"


def _completed(kept: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as it was kept, with the settings that there are since: at their defaults, as it was trained."""
    defaults = dataclasses.asdict(Recipe(""))
    sections = defaults | _OPTIONAL
    return {
        name: {**sections.get(name, {}), **value} if isinstance(value, dict) else value
        for name, value in {**defaults, **kept}.items()
    }
