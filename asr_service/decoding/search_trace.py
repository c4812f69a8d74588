"""How the hypotheses of a beam came about: for each frame from which one each comes, and which ones it beat.

The n-best list is made of those that were beaten, each with what it was short of, as from a lattice: a sequence may
leave another at any frame where it was beaten, and be left itself before that.

Dimensions: T frames, K hypotheses of the beam, M beaten ones of a frame.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_service.decoding.compiled import compiled
from asr_service.decoding.search_arrays import BEATEN, HISTORY, PARENT, PHONE, WINNER, Beam, Integers, Merged
from asr_service.decoding.token_passing import trace_back
from asr_service.decoding.word_histories import WordHistories
from asr_service.lexicon import BLANK_ID
from asr_service.parts import Parts

# The trace begins with room for so many frames.
_FIRST_FRAMES = 64
# A frame keeps at most so many that were beaten, as a share of the beam. In noise 4 % are usual, and up to 47 % occur.
_BEATEN_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Path:
    """One way through the frames held.

    Attributes:
        score: of the whole of it; where something was replaced, of one of its alignments, rarely not the best.
        phones: (T,) in each frame.
        histories: (T,) likewise.
        hypotheses: (T,), its place in the beam, where nothing was replaced.
        replaced: frames before this one are those of a beaten hypothesis, whose alternatives are still to be looked at.
    """

    score: float
    phones: NDArray[np.int64]
    histories: NDArray[np.int64]
    hypotheses: NDArray[np.int64]
    replaced: int


# Its score, negative; its turn among equals; how to make it.
_Waiting = tuple[float, int, Callable[[], Path]]


class SearchTrace:
    """Of one utterance.

    Attributes:
        held: frames in it, at most `max_frames`.
    """

    def __init__(self, beam_size: int, max_frames: int) -> None:
        self._max_frames = max_frames
        frames = min(_FIRST_FRAMES, max_frames)
        self._parents = np.zeros((frames, beam_size), dtype=np.int32)
        self._phones = np.zeros((frames, beam_size), dtype=np.int8)
        self._histories = np.zeros((frames, beam_size), dtype=np.int32)
        most = max(1, round(_BEATEN_SHARE * beam_size))
        self._merged = np.zeros((frames, most, 3), dtype=np.int32)
        self._behind = np.zeros((frames, most), dtype=np.float32)
        self._beaten = np.zeros(frames, dtype=np.int32)
        self.held = self._alive = 0

    def room(self) -> tuple[Integers, Merged]:
        """Where a frame writes from which hypothesis each comes, and whom it has beaten."""
        if self.held == len(self._parents):
            more = min(2 * self.held, self._max_frames) - self.held
            for name in ("_parents", "_phones", "_histories", "_merged", "_behind", "_beaten"):
                rows = getattr(self, name)
                setattr(self, name, np.concatenate([rows, np.zeros((more, *rows.shape[1:]), dtype=rows.dtype)]))
        return self._parents[self.held], Merged(self._merged[self.held], self._behind[self.held])

    def add(self, beam: Beam, beaten: int) -> None:
        """The frame that has written to `room` ends with these hypotheses, `beaten` others were beaten in it."""
        count = len(beam.scores)
        self._phones[self.held, :count] = beam.places[:, PHONE]
        self._histories[self.held, :count] = beam.places[:, HISTORY]
        self._beaten[self.held] = beaten
        self._alive = count
        self.held += 1

    def forget_after(self, held: int, alive: int) -> None:
        """Go back to when it held so many frames, the last with so many hypotheses."""
        self.held, self._alive = held, alive

    def path(self, index: int, score: float) -> Path:
        """That of hypothesis `index` of the last frame."""
        phones, histories, hypotheses = self._back(index, self.held)
        return Path(score, phones, histories, hypotheses, self.held)

    def paths(
        self,
        ends: Iterable[tuple[int, float]],
        histories: WordHistories,
        limit: int,
        margin: float,
        allowed: Callable[[int], bool],
    ) -> Parts[list[Path]]:
        """Paths with different words, best first, of those that end in these hypotheses with a score.

        At most `limit`, and none that is more than `margin` below the best. A path that was beaten is taken to have
        been as far behind at its end as it was there; those that had a history then that is not `allowed` are left out.
        """
        order = itertools.count()
        waiting: list[_Waiting] = [(-score, next(order), partial(self.path, index, score)) for index, score in ends]
        heapq.heapify(waiting)
        found: dict[int, Path] = {}
        least = -waiting[0][0] - margin
        while waiting and len(found) < limit and -waiting[0][0] >= least:
            yield
            path = heapq.heappop(waiting)[-1]()
            if found.setdefault(int(path.histories[-1]), path) is not path:
                continue
            for frame, beaten, score in self._beaten_by(path, least, limit - len(found), allowed):
                replaced: _Waiting = -score, next(order), partial(self._replaced, path, frame, beaten, score, histories)
                heapq.heappush(waiting, replaced)
        return list(found.values())

    def rivals(self, path: Path, within: float) -> list[tuple[int, int]]:
        """Histories along a path with those that they have beaten by less than `within`."""
        frames, numbers = _beaten_on(path.hypotheses, self._merged, self._beaten)
        near = self._behind[frames, numbers] < within
        frames, numbers = frames[near], numbers[near]
        winners = self._histories[frames, path.hypotheses[frames]]
        return list(set(zip(winners.tolist(), self._merged[frames, numbers, BEATEN].tolist(), strict=True)))

    def cut(self, best: Path, frame: int) -> NDArray[np.intp]:
        """Forget all up to `frame`, after which the `best` path begins a word.

        Forgets as well who did not begin one there after the same words. Returns the hypotheses of the last frame that
        are left; they are numbered anew, in this order.
        """
        left = (self._histories[frame] == best.histories[frame]) & ~self._in_word(frame)
        left[best.hypotheses[frame]] = True
        everyone = np.arange(len(left))
        for later in range(frame + 1, self.held):
            parents, merged = self._parents[later], self._merged[later, : self._beaten[later]]
            came, stays = left[parents], left[merged[:, PARENT]]
            if later == frame + 1:  # a phone that lasts belongs to the word before
                came &= ~self._lasts(later, parents, everyone)
                stays &= ~self._lasts(later, merged[:, PARENT], merged[:, WINNER])
            came[best.hypotheses[later]] = True
            self._beaten[later] = count = int(stays.sum())
            self._behind[later, :count] = self._behind[later, : len(merged)][stays]
            merged[:count] = merged[stays]
            left = came
        last, alive = self.held - 1, np.flatnonzero(left[: self._alive])
        one_each: tuple[NDArray[Any], ...] = (self._parents, self._phones, self._histories)
        for rows in one_each:
            rows[last, : len(alive)] = rows[last, alive]
        renumbered = np.full(self._alive, -1, dtype=np.int32)
        renumbered[alive] = np.arange(len(alive))
        merged = self._merged[last, : self._beaten[last]]
        merged[:, WINNER] = renumbered[merged[:, WINNER]]
        self.held -= frame + 1
        self._alive = len(alive)
        for rows in (*one_each, self._merged, self._behind, self._beaten):
            rows[: self.held] = rows[frame + 1 : frame + 1 + self.held].copy()
        return alive

    def _lasts(self, frame: int, parents: Integers, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        """Which hypotheses of a frame, by their parents and numbers, still are in the phone that these were in."""
        phones = self._phones[frame, numbers]
        found: NDArray[np.bool_] = (phones != BLANK_ID) & (phones == self._phones[frame - 1, parents])
        return found

    def _in_word(self, frame: int) -> NDArray[np.bool_]:
        """Which hypotheses of a frame have begun a word and not ended it."""
        numbers = np.arange(self._parents.shape[1])
        histories, begun, between = self._histories[frame], numbers < 0, numbers >= 0
        while frame and between.any():
            parents = self._parents[frame, numbers]
            between &= self._histories[frame - 1, parents] == histories
            begins = (self._phones[frame, numbers] != BLANK_ID) & ~self._lasts(frame, parents, numbers)
            begun |= between & begins
            numbers, frame = parents, frame - 1
        return begun

    def in_use(self) -> Integers:
        """The histories of all that are alive or were beaten, with repeats."""
        beaten = [self._merged[frame, : self._beaten[frame], BEATEN] for frame in range(self.held)]
        return np.concatenate([self._histories[self.held - 1, : self._alive], *beaten])

    def renumber(self, new: Integers) -> None:
        """Give histories their new numbers, by the old ones; what is not `in_use` may be anything."""
        held = self._histories[: self.held]
        # Columns that a frame does not use have the numbers of before, which may have been more than there are now.
        held[...] = new.take(held, mode="clip")
        for frame in range(self.held):
            beaten = self._merged[frame, : self._beaten[frame], BEATEN]
            beaten[...] = new[beaten]

    def _back(self, index: int, frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Phone, history and number in each of the first frames of hypothesis `index` in the last of them."""
        path = np.zeros((3, frames), dtype=np.int64)
        trace_back(index, self._parents, self._phones, self._histories, path)
        return path[0], path[1], path[2]

    def _beaten_by(
        self, path: Path, least: float, limit: int, allowed: Callable[[int], bool]
    ) -> list[tuple[int, int, float]]:
        """The `limit` best ways to leave a path for a score of `least` or more: frame, number there, and that score."""
        frames, numbers = _beaten_on(path.hypotheses[: path.replaced], self._merged, self._beaten)
        near = path.score - self._behind[frames, numbers].astype(np.float64) >= least
        if not near.any():
            return []
        frames, numbers = frames[near], numbers[near]
        winners = self._histories[frames, path.hypotheses[frames]].astype(np.int64)
        beaten, behind = self._merged[frames, numbers, BEATEN], self._behind[frames, numbers]
        by_loss = np.argsort(behind, kind="stable")
        # The same words in place of the same: at the frame where it costs least.
        _, first = np.unique((winners << 32 | beaten)[by_loss], return_index=True)
        chosen = (i for i in by_loss[np.sort(first)].tolist() if allowed(int(beaten[i])))
        return [
            (int(frames[i]), int(numbers[i]), path.score - float(behind[i])) for i in itertools.islice(chosen, limit)
        ]

    def _replaced(self, path: Path, frame: int, number: int, score: float, histories: WordHistories) -> Path:
        """`path` with one that it has beaten instead of what it was up to a frame."""
        parent, history = self._merged[frame, number, PARENT], int(self._merged[frame, number, BEATEN])
        phones, before, hypotheses = self._back(parent, frame)
        after = path.histories[frame:].copy()
        changes = np.flatnonzero(np.diff(path.histories[frame:], append=-1)) + 1
        begin = 0
        for end in changes.tolist():
            if begin:
                history = histories.after(history, histories.last_word(int(path.histories[frame + begin])))
            after[begin:end] = history
            begin = end
        return Path(
            score,
            np.concatenate([phones, path.phones[frame:]]),
            np.concatenate([before, after]),
            hypotheses,
            frame,
        )


@compiled
def _beaten_on(
    hypotheses: NDArray[np.int64], merged: Integers, beaten: Integers
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Frames and numbers of all that were beaten by `hypotheses`, one a frame."""
    count = 0
    for frame in range(len(hypotheses)):
        for number in range(beaten[frame]):
            count += merged[frame, number, WINNER] == hypotheses[frame]
    frames, numbers = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    count = 0
    for frame in range(len(hypotheses)):
        for number in range(beaten[frame]):
            if merged[frame, number, WINNER] == hypotheses[frame]:
                frames[count], numbers[count] = frame, number
                count += 1
    return frames, numbers
