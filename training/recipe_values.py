"""What a recipe's setting may be: its type, as the dataclass declares it, and its limits."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from asr_service.toml_types import of_type

# No setting is larger: what is finite has a limit.
MOST = 1e9
SHARE = (0.0, 1.0)
AT_LEAST_0 = (0.0, MOST)
AT_LEAST_1 = (1.0, MOST)
# 0 itself is refused; nothing is as small as this.
ABOVE_0 = (1e-9, MOST)


def typed(section: str, table: Mapping[str, Any], settings: type) -> dict[str, Any]:
    """The values of a TOML table for the dataclass `settings`, lists as tuples and whole numbers as floats it wants.

    Raises ValueError that names the setting: one that there is not, or a value of another type.
    """
    wanted = typing.get_type_hints(settings)
    known = sorted(field.name for field in dataclasses.fields(settings))
    if unknown := sorted(set(table) - set(known)):
        raise ValueError(f"[{section}] {unknown[0]}: no such setting; known are {', '.join(known)}")
    return {name: of_type(f"[{section}] {name}", value, wanted[name]) for name, value in table.items()}


def within(section: str, settings: Any, limits: Mapping[str, tuple[float, float]]) -> None:
    """Raises ValueError that names a setting outside its limits, which are allowed themselves; NaN is outside."""
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            least = "above 0" if low == ABOVE_0[0] else f"{low:g} or more"
            rule = f"{low:g} to {high:g}" if high < MOST else f"at most {high:g}" if value > high else least
            raise ValueError(f"[{section}] {name} is {value}, must be {rule}")
