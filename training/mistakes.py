"""What is wrong with the files and settings that a command is given, in one line instead of a traceback."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from asr_service.errors import AsrError


@contextlib.contextmanager
def told_in_one_line(command: str) -> Iterator[None]:
    """Inside, ValueError, AsrError and OSError end the process with `command: what is wrong` on stderr and code 2."""
    try:
        yield
    except (ValueError, AsrError, OSError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        raise SystemExit(2) from error
