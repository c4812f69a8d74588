"""Words on a terminal while somebody speaks: what stays in bold, what may still change dimmed."""

from __future__ import annotations

import shutil
from typing import TextIO

BOLD, DIM, PLAIN, CLEAR_LINE = "\x1b[1m", "\x1b[2m", "\x1b[0m", "\r\x1b[K"


class LiveView:
    """Finals as lines on `output`; interims as one line that is drawn again on `screen`, or as lines where that is no
    terminal.

    Args:
        show_partials: whether interims are shown at all.
    """

    def __init__(self, output: TextIO, screen: TextIO, *, show_partials: bool) -> None:
        self._output = output
        self._screen = screen
        self._show_partials = show_partials
        self._is_terminal = screen.isatty()

    def partial(self, stable: str, tail: str) -> None:
        if not self._show_partials:
            return
        if self._is_terminal:
            stable, tail = _last_columns(stable, tail, shutil.get_terminal_size().columns - 1)
            self._screen.write(f"{CLEAR_LINE}{BOLD}{stable}{PLAIN}{DIM}{tail}{PLAIN}")
        else:
            self._screen.write(f"... {stable}|{tail}\n")
        self._screen.flush()

    def final(self, text: str) -> None:
        self.clear()
        self._output.write(text + "\n")
        self._output.flush()

    def clear(self) -> None:
        if self._show_partials and self._is_terminal:
            self._screen.write(CLEAR_LINE)
            self._screen.flush()


def _last_columns(stable: str, tail: str, columns: int) -> tuple[str, str]:
    """The end of the text that fits a line: a line that wraps could not be drawn again in its place."""
    excess = len(stable) + len(tail) - columns
    if excess <= 0:
        return stable, tail
    return stable[excess:], tail[max(0, excess - len(stable)) :]
