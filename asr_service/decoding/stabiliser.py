"""Which first words of a growing hypothesis will not change any more.

Two rules, the longer answer counts. (1) Words that every hypothesis of the beam shares that could still win: later
hypotheses descend from these. (2) Words that stood unchanged in the best hypothesis for `agreement` updates
(LocalAgreement; Liu et al. 2020): earlier, and now and then wrong; then the shown words win over the search's.

What was once called stable is never taken back: `splice` puts the shown words before what a later hypothesis goes on
with.
"""

from __future__ import annotations

from collections.abc import Sequence

from asr_service.decoding.hypothesis import TimedWord


class Stabiliser:
    """Follows the partial hypotheses of one utterance; `reset` begins the next."""

    def __init__(self, agreement: int = 0) -> None:
        """`agreement`: updates a word must stand unchanged, 0 for rule (1) alone."""
        if agreement < 0:
            raise ValueError(f"agreement is {agreement}, must be 0 or more")
        self._agreement = agreement
        self.reset()

    def reset(self) -> None:
        self._stable: tuple[TimedWord, ...] = ()
        self._previous: tuple[str, ...] = ()
        self._unchanged: list[int] = []

    @property
    def stable(self) -> tuple[TimedWord, ...]:
        """The words that every later partial and the final start with."""
        return self._stable

    def update(self, best: Sequence[TimedWord], shared: int) -> tuple[TimedWord, ...]:
        """Take the best hypothesis' words, the first `shared` of which all hypotheses have; return what to show.

        The first `len(self.stable)` words of the answer are stable.
        """
        texts = tuple(word.text for word in best)
        kept = shared_length(texts, self._previous)
        self._unchanged = [count + 1 for count in self._unchanged[:kept]] + [1] * (len(texts) - kept)
        self._previous = texts
        agreed = 0
        if self._agreement:
            agreed = next((i for i, count in enumerate(self._unchanged) if count < self._agreement), len(texts))
        shown = self.splice(best)
        if shown[: len(best)] == tuple(best):
            count = max(len(self._stable), min(shared, len(best)), agreed)
            self._stable = shown[:count]
        return shown

    def splice(self, words: Sequence[TimedWord]) -> tuple[TimedWord, ...]:
        """`words`, made to start with the stable ones: as they are where they do; else the words that begin after the
        last stable one has ended follow them.
        """
        count = len(self._stable)
        if [word.text for word in words[:count]] == [word.text for word in self._stable]:
            return tuple(words)  # with their own frames: those of the stable ones may end after the next word's start
        end = self._stable[-1].end_frame
        return (*self._stable, *(word for word in words if word.start_frame >= end))


def shared_length(left: Sequence[str], right: Sequence[str]) -> int:
    """How many first words two sequences share."""
    return next(
        (i for i, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]),
        min(len(left), len(right)),
    )
