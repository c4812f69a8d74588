"""What is wrong with a test set or with a system's output: all of it at once, so that nothing is dropped silently."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from asr_service.errors import ConfigError
from asr_service.evaluation.output import Output
from asr_service.evaluation.reference import Reference

SHOWN_PROBLEMS = 5


class ManifestProblems(ConfigError):
    """References or outputs that cannot be scored as they are.

    Attributes:
        problems: every one of them, each naming its file, line or utterance. The message shows the first few.
    """

    reason = "INVALID_TEST_SET"

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        shown = "; ".join(self.problems[:SHOWN_PROBLEMS])
        left = len(self.problems) - SHOWN_PROBLEMS
        super().__init__(f"{shown}; and {left} more problems" if left > 0 else shown)


def refuse_if_any(problems: Sequence[str]) -> None:
    """Raise ManifestProblems of `problems`, if there are any."""
    if problems:
        raise ManifestProblems(problems)


def wrong_times(references: Iterable[Reference]) -> Iterator[str]:
    """A problem for each offset and duration that is no number of seconds from 0 on."""
    for reference in references:
        for name, value in (("offset", reference.offset_s), ("duration", reference.duration_s)):
            if value is not None and not 0.0 <= value < math.inf:
                yield f"{reference.utterance_id}: {name} is {value}, not a number of seconds from 0 on"


def wrong_words(outputs: Iterable[Output]) -> Iterator[str]:
    """A problem for each output with a word whose times or confidence are no numbers of their range."""
    for output in outputs:
        for word in output.words:
            if not 0.0 <= word.start_s <= word.end_s < math.inf:
                yield f"{output.utterance_id}: the word {word.text} is from {word.start_s} to {word.end_s} s"
            if not 0.0 <= word.confidence <= 1.0:
                yield f"{output.utterance_id}: the confidence of {word.text} is {word.confidence}, not from 0 to 1"
