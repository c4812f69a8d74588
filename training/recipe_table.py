"""The settings that a recipe's file has, before they are looked at.

A recipe may say `extends = "NAME"`: it is then that recipe beside it, but for what it says itself.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_table(path: Path) -> dict[str, Any]:
    """The settings of a recipe with those of the recipes beside it that it `extends`, its own going before.

    Raises ValueError where one is no TOML, is missing, or where they extend each other in a circle.
    """
    tables: list[dict[str, Any]] = []
    chain = [path]
    while True:
        try:
            tables.append(tomllib.loads(chain[-1].read_text(encoding="utf-8")))
        except OSError as error:
            extended = f"{chain[-2]} extends it: " if len(chain) > 1 else ""
            raise ValueError(f"{chain[-1]}: {extended}{error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{chain[-1]}: not TOML: {error}") from error
        if "extends" not in tables[-1]:
            break
        parent = _beside(chain[-1], tables[-1].pop("extends"))
        if parent in chain:
            raise ValueError(f"{path}: extends itself by way of {parent.name}")
        chain.append(parent)
    merged: dict[str, Any] = {}
    for table in reversed(tables):
        merged = _merged(merged, table)
    return merged


def _beside(path: Path, name: Any) -> Path:
    """The file of the recipe that the one at `path` extends; raises ValueError for what is no name."""
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ValueError(f"{path}: extends is {name!r}, must be the name of a recipe beside it, without .toml")
    return path.with_name(f"{name}.toml")


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables, and those in them, with the values of `above` where both have one; a list is one value."""
    both = dict(below)
    for name, value in above.items():
        under = both.get(name)
        both[name] = _merged(under, value) if isinstance(value, dict) and isinstance(under, dict) else value
    return both
