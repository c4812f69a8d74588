"""How far a long piece of work is, on stderr: a line that renews itself, or one now and then where nobody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")

RENEW_S = 0.2
LOG_S = 60.0


def shown(
    items: Iterable[T],
    total: int,
    what: str,
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """The items as they come; `what` names them, such as "utterances"."""
    stream = stream if stream is not None else sys.stderr
    watched = stream.isatty()
    period_s = RENEW_S if watched else LOG_S
    begun = told = clock()
    try:
        for number, item in enumerate(items, 1):
            yield item
            now = clock()
            if now - told >= period_s:
                told = now
                left = _duration((now - begun) / number * (total - number))
                line = f"{number} of {total} {what}, {left} left"
                print(f"\r\033[K{line}" if watched else line, end="" if watched else "\n", file=stream, flush=True)
    finally:
        if watched:
            print("\r\033[K", end="", file=stream, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
