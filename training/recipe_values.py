"""What a recipe's setting may be: its type, as the dataclass declares it, and its limits.

A list where a text belongs, or a text where a list does, would often do something and something else than was meant.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

# No setting is larger: what is finite has a limit.
MOST = 1e9
SHARE = (0.0, 1.0)
AT_LEAST_0 = (0.0, MOST)
AT_LEAST_1 = (1.0, MOST)
# 0 itself is refused; nothing is as small as this.
ABOVE_0 = (1e-9, MOST)

_CALLED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "a table"}


def typed(section: str, table: Mapping[str, Any], settings: type) -> dict[str, Any]:
    """The values of a TOML table for the dataclass `settings`, lists as tuples and whole numbers as floats it wants.

    Raises ValueError that names the setting: one that there is not, or a value of another type.
    """
    wanted = typing.get_type_hints(settings)
    known = sorted(field.name for field in dataclasses.fields(settings))
    if unknown := sorted(set(table) - set(known)):
        raise ValueError(f"[{section}] {unknown[0]}: no such setting; known are {', '.join(known)}")
    return {name: of_type(f"[{section}] {name}", value, wanted[name]) for name, value in table.items()}


def of_type(place: str, value: Any, wanted: Any) -> Any:
    """`value` as `wanted`, a type that a dataclass declares. Raises ValueError that begins with `place`."""
    origin, parts = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Literal:
        if value not in parts:
            raise ValueError(f"{place} is {value!r}, must be {' or '.join(parts)}")
        return value
    if origin is types.UnionType:  # T | None; TOML has no None
        return of_type(place, value, parts[0])
    if origin is tuple:
        kinds = None if parts[-1] is Ellipsis else parts
        if not isinstance(value, list) or (kinds is not None and len(kinds) != len(value)):
            length = "" if kinds is None else f" of {len(kinds)}"
            raise ValueError(f"{place} is {value!r}, must be a list{length}")
        return tuple(
            of_type(place, item, kind) for item, kind in zip(value, kinds or parts[:1] * len(value), strict=True)
        )
    kind = origin or wanted
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{place} is {value!r}, must be {_CALLED[kind]}")
    return value


def within(section: str, settings: Any, limits: Mapping[str, tuple[float, float]]) -> None:
    """Raises ValueError that names a setting outside its limits, which are allowed themselves; NaN is outside."""
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            rule = f"{low:g} to {high:g}" if high < MOST else "above 0" if low == ABOVE_0[0] else f"{low:g} or more"
            raise ValueError(f"[{section}] {name} is {value}, must be {rule}")
