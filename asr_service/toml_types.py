"""A value from TOML as a dataclass declares it: settings of the service, and of a training recipe.

A list where a text belongs, or a text where a list does, would often do something and something else than was meant.
"""

from __future__ import annotations

import math
import types
import typing
from typing import Any

_CALLED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "a table"}


def of_type(place: str, value: Any, wanted: Any) -> Any:
    """`value` as `wanted`, a type that a dataclass declares: lists as tuples, whole numbers as floats it wants.

    Raises ValueError that begins with `place`: a value of another type, or a number that is not finite.
    """
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
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{place} is {value!r}, must be finite")
    return value
