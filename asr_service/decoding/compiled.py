"""Functions compiled by numba on their first call, and kept on disk where there is a folder for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from numba import njit

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`function` as machine code that runs without the interpreter lock.

    Compiling takes seconds, reading the cache milliseconds. The cache lies beside the source, else in the user's cache
    folder; in a read-only container it may lie nowhere (NUMBA_CACHE_DIR names another folder).
    """
    try:
        fast = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder can be written to
        fast = njit(nogil=True)(function)
    return cast(Callable[Arguments, Result], fast)
