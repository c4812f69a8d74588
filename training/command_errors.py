"""What is wrong with the files and settings that a command is given, in one line instead of a traceback."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import asr_service
from asr_service.errors import AsrError

_OURS = (Path(asr_service.__file__).parent, Path(__file__).parent)


@contextlib.contextmanager
def told_in_one_line(command: str) -> Iterator[None]:
    """Inside, a mistake ends the process with `command: what is wrong` on stderr and exit code 2.

    Mistakes are AsrError, OSError, and the ValueErrors that our own code raises. One that comes from inside another
    package is a fault of ours, perhaps after hours of training: it keeps its traceback.
    """
    try:
        yield
    except (ValueError, AsrError, OSError) as error:
        if isinstance(error, ValueError) and not _is_ours(error):
            raise
        print(f"{command}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _is_ours(error: ValueError) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    raised_in = Path(frame.f_code.co_filename)
    return any(folder in raised_in.parents for folder in _OURS)
