"""A system without a model: its words are a function of the utterance id, as a recogniser's are of the audio."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from asr_service.errors import BundleError, InvalidAudio
from asr_service.evaluation.output import Output, Timing
from asr_service.evaluation.reference import Reference
from asr_service.types import Word


@dataclass(frozen=True)
class CountingSystem:
    """`calls` is a file where each utterance recognised is noted; `refused` ids fail, `fatal` ones kill the process,
    `torn` ones in the middle of their result.
    """

    calls: Path | None = None
    refused: tuple[str, ...] = ()
    fatal: tuple[str, ...] = ()
    torn: tuple[str, ...] = ()
    each_s: float = 0.0
    broken: bool = False
    name: str = "counting"

    @contextlib.contextmanager
    def open(self) -> Iterator[CountingRecogniser]:
        if self.broken:
            raise BundleError("there is no such model")
        yield CountingRecogniser(self)

    def identity(self) -> Mapping[str, str]:
        return {"model": self.name}

    def vocabulary(self) -> None:
        return None


class CountingRecogniser:
    def __init__(self, system: CountingSystem) -> None:
        self._system = system

    def recognise(self, reference: Reference) -> Output:
        name = reference.utterance_id
        time.sleep(self._system.each_s)
        if self._system.calls is not None:
            with self._system.calls.open("a") as file:
                file.write(f"{name}\n")
        if name in self._system.refused:
            raise InvalidAudio("the file is empty (0 bytes)")
        if name in self._system.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        if name in self._system.torn:
            Connection._send = _half  # type: ignore[attr-defined]
        number = int(name.removeprefix("utt-"))
        words = tuple(Word(f"w{place}", number / 3 + place, number / 3 + place + 0.1, 1 / 3) for place in range(3))
        return Output(
            name, " ".join(word.text for word in words), words, Timing(number / 7, 1.0, word_latencies_s=(0.1,))
        )


def _half(connection: Any, data: bytes) -> None:
    os.write(connection.fileno(), data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def references(count: int) -> list[Reference]:
    return [Reference(f"utt-{number}", "w0 w1 w2") for number in range(count)]
