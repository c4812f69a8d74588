"""Lines, times and recordings, as every format of references and hypotheses has them.

Readers collect what is wrong in a list of problems, each with its file and line, and go on: whoever repairs a test set
wants all of it at once.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

from asr_service.evaluation.reference import FieldValue

AUDIO_SUFFIXES = (".wav", ".flac", ".opus", ".ogg", ".mp3", ".m4a", ".sph", ".webm")


def file_text(path: Path) -> str:
    """A UTF-8 text, unpacked if its name ends in .gz. Raises OSError, EOFError, zlib.error or UnicodeDecodeError."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")


def file_lines(path: Path, problems: list[str]) -> list[str]:
    """The lines of a UTF-8 text, unpacked if its name ends in .gz; none, and a problem, where it cannot be read."""
    try:
        return file_text(path).split("\n")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: no UTF-8 at byte {error.start}")
    except (OSError, EOFError, zlib.error) as error:
        problems.append(f"{path}: {getattr(error, 'strerror', None) or error}")
    return []


def unpacked(path: Path) -> Path:
    """Its name without .gz."""
    return path.with_suffix("") if path.suffix == ".gz" else path


def numbered(path: Path, problems: list[str]) -> Iterator[tuple[str, str]]:
    """(place, line) of each line that is not empty, stripped; the place is `file:number`."""
    for number, line in enumerate(file_lines(path, problems), 1):
        if stripped := line.strip():
            yield f"{path}:{number}", stripped


def seconds(value: object, name: str) -> float:
    """`value` as seconds. Raises ValueError, which names `name`, unless it is a finite number from 0 on."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 <= number < math.inf:
        raise ValueError(f"{name} is {value!r}, not a number of seconds from 0 on")
    return number


def finite(value: FieldValue, name: str) -> FieldValue:
    """The value of a further field. Raises ValueError, which names `name`, for NaN and infinities: JSON has none."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, not a finite number")
    return value


def audio_beside(folder: Path, stem: str) -> Path | None:
    """The recording of that name in `folder`, whatever its kind; None where there is none."""
    candidates = (folder / f"{stem}{suffix}" for suffix in AUDIO_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)
