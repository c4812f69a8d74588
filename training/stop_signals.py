"""A request to stop, noted and not obeyed at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Inside, SIGTERM and SIGINT land in the list instead of ending the process: finish the step, save, and go."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda sent, _frame: received.append(sent))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
