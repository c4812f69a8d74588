"""What is wrong with a test set or with a system's output: all of it at once, so that nothing is dropped silently."""

from __future__ import annotations

from collections.abc import Sequence

from asr_service.errors import ConfigError

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
