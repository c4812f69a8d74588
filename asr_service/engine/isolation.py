"""A batch that fails is tried again row by row, so that only the culprit's row fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from asr_service.parts import Parts

logger = logging.getLogger(__name__)

Row = TypeVar("Row")
Result = TypeVar("Result")


def each(run: Callable[[Sequence[Row]], Parts[list[Result]]], rows: Sequence[Row]) -> Parts[list[Result | Exception]]:
    """What `run` says of all rows at once; where it raises, what it says of each row alone, or raises there.

    `run` must have changed nothing when it raises.
    """
    try:
        return list((yield from run(rows)))
    except Exception as error:
        logger.exception("a batch of %d failed", len(rows))
        if len(rows) == 1:
            return [error]
    results: list[Result | Exception] = []
    for row in rows:
        results += yield from each(run, [row])
    return results
