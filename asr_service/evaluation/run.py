"""Recognising a test set: one output or one failure for each reference, kept in a journal while it goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from asr_service.errors import AsrError
from asr_service.evaluation.journal import Journal
from asr_service.evaluation.output import Output
from asr_service.evaluation.reference import Reference


@dataclass(frozen=True, slots=True)
class Failure:
    """An utterance that could not be recognised, and why."""

    utterance_id: str
    message: str


class Recogniser(Protocol):
    """Something ready to recognise one utterance after the other."""

    def recognise(self, reference: Reference) -> Output:
        """Raises AsrError and OSError where this utterance cannot be recognised; the next one may be."""
        ...


class System(Protocol):
    """What is evaluated, as plain data: it is pickled to the processes and machines that share the work."""

    def open(self) -> AbstractContextManager[Recogniser]:
        """A recogniser, loaded or connected. Raises AsrError."""
        ...

    def identity(self) -> Mapping[str, str]:
        """All that the words depend on. Outputs of equal identities may be put together. Has `model`, a name."""
        ...

    def vocabulary(self) -> Container[str] | None:
        """The words it knows, where it has a list of them."""
        ...


Result = Output | Failure
# How the work is spread: over nothing, processes or machines. The order of the results is free.
Spread = Callable[[System, Sequence[Reference]], Iterator[Result]]


def one_by_one(system: System, references: Iterable[Reference]) -> Iterator[Result]:
    """In this process, in order."""
    with system.open() as recogniser:
        for reference in references:
            try:
                yield recogniser.recognise(reference)
            except AsrError as error:
                yield Failure(reference.utterance_id, error.message)
            except OSError as error:
                yield Failure(reference.utterance_id, str(error))


def run(
    references: Sequence[Reference], system: System, *, spread: Spread = one_by_one, journal: Journal | None = None
) -> Iterator[Result]:
    """One result for each reference, in any order: first what the journal has, then the rest as it comes.

    An output is in the journal before it is yielded; failures are not, so that the next run tries them again. Times and
    confidences that are not finite are a failure.

    Raises AsrError where the system cannot be opened at all, or the spread has broken down.
    """
    done = journal.outputs if journal is not None else {}
    left = [reference for reference in references if reference.utterance_id not in done]
    yield from (done[reference.utterance_id] for reference in references if reference.utterance_id in done)
    if not left:
        return
    for result in spread(system, left):
        if isinstance(result, Output) and not _is_finite(result):
            yield Failure(result.utterance_id, "a time or a confidence of its output is not finite")
            continue
        if isinstance(result, Output) and journal is not None:
            journal.append(result)
        yield result


def _is_finite(output: Output) -> bool:
    values: list[Any] = [value for word in output.words for value in (word.start_s, word.end_s, word.confidence)]
    if output.timing is not None:
        for value in map(output.timing.__getattribute__, output.timing.__slots__):
            values += value if isinstance(value, tuple) else [value]
    return all(value is None or math.isfinite(value) for value in values)


def in_order(references: Sequence[Reference], results: Iterable[Result]) -> tuple[list[Output], list[Failure]]:
    """Outputs and failures, each in the references' order. A reference that nothing came back for has failed."""
    by_id = {result.utterance_id: result for result in results}
    every = [
        by_id.get(reference.utterance_id, Failure(reference.utterance_id, "no result came back"))
        for reference in references
    ]
    outputs = [result for result in every if isinstance(result, Output)]
    return outputs, [result for result in every if isinstance(result, Failure)]
