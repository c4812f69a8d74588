"""A recipe's settings by name: what the run in a folder and the one that is asked for are compared by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.recipe import SHIPPED_LEXICON

# Decides over no weight and over no result: what it is called, and what suits the machine.
FREE = frozenset({"name", "dtype", "data.prefetch"})
_IN_PACKAGE = SHIPPED_LEXICON.parts[-4:]  # asr_service/models/…


def settings_by_name(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """`section.name` to value, as JSON has it, of a recipe as a dictionary.

    The shipped lexicon has no path: it is the same one wherever the repository lies.
    """
    flat: dict[str, Any] = {}
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": setting for inner, setting in value.items()}
        else:
            flat[name] = value
    lexicon = flat.get("data.lexicon")
    if lexicon and Path(lexicon).parts[-len(_IN_PACKAGE) :] == _IN_PACKAGE:
        flat["data.lexicon"] = "the shipped one"
    settings: dict[str, Any] = json.loads(json.dumps(flat))
    return settings
