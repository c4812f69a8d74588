"""Lines of a manifest, read with all that is wrong in them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeVar

from asr_service.evaluation.references.rows import Row, json_rows, text_field

T = TypeVar("T")


def read_rows(path: Path, read: Callable[[Row], T]) -> list[T]:
    """What `read` makes of each line, a JSON object; empty lines are left out.

    `read` raises ValueError, which names the field. Raises ValueError with everything that is wrong, each with its file
    and line: a file that cannot be read, lines that are no JSON object, and what `read` refuses.
    """
    problems: list[str] = []
    made = []
    for place, row in json_rows(path, problems):
        try:
            made.append(read(row))
        except ValueError as error:
            problems.append(f"{place}: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return made


def corpus_and_text(row: Row) -> tuple[str, str]:
    """An utterance's corpus and its text as it is written, "" for what is missing or null."""
    return text_field(row, ("corpus",)), text_field(row, ("text",))


def warn_of_missing(path: Path, excluded: Iterable[str], there: Collection[str]) -> None:
    """Name on stderr the `excluded` corpora that a manifest lacks: misspelt, they would be learned from in silence."""
    if missing := [corpus for corpus in excluded if corpus not in there]:
        print(f"{path}: no utterance of {', '.join(missing)} to exclude", file=sys.stderr)
