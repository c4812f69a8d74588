"""Whether the fine-tuning run in a folder is the one that is asked for.

The looks of a run are compared with each other, and the best of them is its result: they must all be of one recipe,
one base with all that it searches with, one language model and the same dev sets. That is stricter than what training
may go on with (training/same_run.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from asr_service.model.bundle import CARD_FILE, LM_FILE, WEIGHTS_FILE, Bundle
from training.atomic import atomic_text
from training.checkpoint import latest_checkpoint
from training.data import speech_dir
from training.finetune_config import FinetuneConfig
from training.lora import weights_digest
from training.recipe import Recipe
from training.recipe_settings import FREE, settings_by_name

IDENTITY_FILE = "identity.json"
# Nor over any look: what is done once one has forgotten.
_FREE = FREE | {"finetune.on_forgetting"}
# The base's weights and language model count as they are used; its card does not.
_KNOWN_OTHERWISE = {WEIGHTS_FILE, LM_FILE, CARD_FILE}


def identity(recipe: Recipe, base: Bundle, lm: Path | None) -> dict[str, Any]:
    """What must not change in a run, by name; `lm` is the language model that its looks search with."""
    kept = _settings(recipe)
    kept["SHA-256 of the base's weights"] = weights_digest(base)
    kept["SHA-256 of the language model"] = _digest(lm)
    for file in sorted(base.directory.iterdir()):
        if file.name not in _KNOWN_OTHERWISE:
            kept[f"SHA-256 of the base's {file.name}"] = _digest(file)
    old_dev = [recipe.finetune.old_dev_manifest] if recipe.finetune else []
    for manifest in (recipe.data.dev_manifest, *old_dev):
        kept[f"SHA-256 of {manifest}"] = _digest(speech_dir() / manifest)
    return kept


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Those that must not change."""
    settings = settings_by_name(dataclasses.asdict(recipe))
    return {name: value for name, value in settings.items() if name not in _FREE}


def _digest(path: Path | None) -> str | None:
    if path is None or not path.is_file():  # what must be there is missed where it is read
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_same(folder: Path, now: dict[str, Any]) -> bool:
    """Whether the folder's looks are those of the run `now`; where there was none before, they are not.

    Raises ValueError that names what differs when the folder has a checkpoint of another run: going on, that would
    report what the other recipe has learnt.
    """
    path = folder / IDENTITY_FILE
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if before:  # settings that there are since stood at their defaults
        defaults = _settings(Recipe("", finetune=FinetuneConfig()))
        before = {name: value for name, value in defaults.items() if name in now} | settings_by_name(before)
    if before == now:
        return True
    if latest_checkpoint(folder) is None:
        return False
    different = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    named = "; ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in different)
    found = named if before else f"it has no {IDENTITY_FILE}"
    raise ValueError(f"{folder} holds another run: {found}. Move it away, or name the recipe anew")


def keep_identity(folder: Path, now: dict[str, Any]) -> None:
    """Make the folder that of the run `now`."""
    with atomic_text(folder / IDENTITY_FILE) as file:
        json.dump(now, file, indent=1)
