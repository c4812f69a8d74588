"""Work that is done part by part: a generator that yields wherever something else may be done first."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

Result = TypeVar("Result")
Parts: TypeAlias = Generator[None, None, Result]


def at_once(parts: Parts[Result]) -> Result:
    """All parts without a pause."""
    while True:
        try:
            next(parts)
        except StopIteration as done:
            result: Result = done.value
            return result
