"""Outputs on disk while a run goes, so that one that was killed goes on where it was.

JSON lines. The first is the run's identity; each other one is an output. Floats are written so that they read back as
the same bits: a run in two parts has the result of a run in one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from asr_service.errors import ConfigError
from asr_service.evaluation.output import Output, Timing
from asr_service.evaluation.reference import Reference
from asr_service.types import Word

FORMAT = 1
BEGINNING = b'{"journal":'


class Journal:
    """The outputs of one run.

    Lines are written whole and handed to the operating system at once: they survive the process, not a power cut. Half
    a line at the end, of a process that was killed in the middle of it, is cut off.

    Attributes:
        outputs: those of earlier, by utterance id.

    Raises:
        ConfigError: the file is no journal, is of a run with another identity, is written by another process right
            now, or cannot be written; the message names it and what differs.
    """

    def __init__(self, path: Path, identity: Mapping[str, str]) -> None:
        self.path = path
        try:
            self._file: BinaryIO = path.open("a+b")
        except OSError as error:
            raise ConfigError(f"cannot write the journal {path}: {error.strerror}") from error
        try:
            self.outputs = self._take(identity)
        except BaseException:
            self._file.close()
            raise

    def _take(self, identity: Mapping[str, str]) -> dict[str, Output]:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"the journal {self.path} is written by another run right now") from error
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if content[: len(BEGINNING)] != BEGINNING[: len(content)]:
            raise ConfigError(f"{self.path} is no journal of an evaluation")
        lines = whole.splitlines()
        if not lines:
            self._file.truncate(0)
            self._write({"journal": FORMAT, "identity": dict(identity)})
            return {}
        self._check(lines[0], identity)
        self._file.truncate(len(whole))
        try:
            return {output.utterance_id: output for output in map(_read_output, lines[1:])}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"the journal {self.path} has a line that is no output; delete it to start anew"
            ) from error

    def _check(self, line: bytes, identity: Mapping[str, str]) -> None:
        try:
            header = json.loads(line)
            written, earlier = header["journal"], dict(header["identity"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.path} is no journal of an evaluation") from error
        names = sorted(set(earlier) | set(identity))
        differing = [name for name in names if earlier.get(name) != identity.get(name)]
        if written != FORMAT or differing:
            what = "; ".join(f"{name} was {earlier.get(name)}, is {identity.get(name)}" for name in differing)
            raise ConfigError(
                f"the journal {self.path} is of another run ({what or f'format {written}'}): finish that one, or "
                "delete it to start anew"
            )

    def append(self, output: Output) -> None:
        """Raises OSError, such as for a full disk; ValueError for a time that is not finite."""
        self._write(_output_row(output))

    def _write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def references_digest(references: Iterable[Reference]) -> str:
    """Which audio is recognised, whatever the order: ids, file names and parts. Texts may be corrected meanwhile."""
    rows = sorted(
        [r.utterance_id, r.audio_path.name if r.audio_path else "", repr(r.offset_s), repr(r.duration_s)]
        for r in references
    )
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _output_row(output: Output) -> dict[str, Any]:
    timing = output.timing
    return {
        "id": output.utterance_id,
        "text": output.text,
        "words": [[word.text, word.start_s, word.end_s, word.confidence] for word in output.words],
        "timing": None if timing is None else {name: getattr(timing, name) for name in Timing.__slots__},
    }


def _read_output(line: bytes) -> Output:
    row = json.loads(line)
    timing: dict[str, Any] | None = row["timing"]
    if timing is not None:
        timing = {name: tuple(value) if isinstance(value, list) else value for name, value in timing.items()}
    return Output(
        utterance_id=row["id"],
        text=row["text"],
        words=tuple(Word(*word) for word in row["words"]),
        timing=None if timing is None else Timing(**timing),
    )
