"""Stdout that tells its own failures from those of whatever else a command reads and writes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class StdoutLost(Exception):  # no AsrError and no OSError: commands put those down to what they read
    """Nothing more can be written to stdout.

    Attributes:
        problem: for people, "" where the reader has gone (`asr ... | head`) and nobody needs to be told.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


@contextlib.contextmanager
def checked_stdout() -> Iterator[None]:
    """In the block, writing to `sys.stdout` raises StdoutLost; so does the block's end, where all is flushed."""
    stdout = sys.stdout
    checked: Any = _Checked(stdout)
    try:
        with contextlib.redirect_stdout(checked):
            try:
                yield
            finally:
                if stdout is not None:
                    checked.flush()
    except StdoutLost:
        if stdout is not None:  # the interpreter would flush it again when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        raise


class _Checked:
    def __init__(self, stdout: TextIO | None) -> None:
        self._stdout = stdout

    def write(self, text: str) -> int:
        with self._telling() as stdout:
            return stdout.write(text)

    def flush(self) -> None:
        with self._telling() as stdout:
            stdout.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[TextIO]:
        if self._stdout is None:  # so Python has it where the process was started without one
            raise StdoutLost("it is closed")
        try:
            yield self._stdout
        except BrokenPipeError as error:
            raise StdoutLost("") from error
        except OSError as error:
            raise StdoutLost(error.strerror or str(error)) from error
