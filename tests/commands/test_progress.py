"""A bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import io

import pytest

from asr_service.commands.progress import shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (Terminal(), "\r\033[K1 of 3, 1:20 left\r\033[K2 of 3, 0:40 left\r\033[K3 of 3, 0:00 left\r\033[K"),
        (io.StringIO(), "2 of 3, 0:40 left\n"),
    ],
    ids=["terminal", "log"],
)
def test_progress_is_one_line_on_a_terminal_and_a_line_now_and_then_in_a_log(
    stream: io.StringIO, expected: str
) -> None:
    times = iter(range(0, 1000, 40))
    assert list(shown("abc", 3, "items", stream=stream, clock=lambda: float(next(times)))) == list("abc")
    assert stream.getvalue().replace(" items", "") == expected
