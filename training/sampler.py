"""Which utterances each update sees: a function of the recipe and the position alone, the same for all processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from training.data import epoch_batches
from training.recipe import Recipe


@dataclass(slots=True)
class Position:
    """Where in the data a run is.

    Attributes:
        step: updates made.
        epoch, batch: the next batch is number `batch` of epoch `epoch`.
        audio_s: seconds of audio heard, without padding, and each utterance once whatever its views.
        skipped: updates left out because a loss or the gradient was not finite.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    audio_s: float = 0.0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A batch before it is made.

    Attributes:
        step: the update it belongs to, from 0.
        slot: its place among that update's batches, from 0 to `accumulate` - 1.
        epoch, number: its place in the data.
        indices: its examples.
        after: epoch and number of the first batch of the next update.
    """

    step: int
    slot: int
    epoch: int
    number: int
    indices: tuple[int, ...]
    after: tuple[int, int]


def plan(durations_s: Sequence[float], recipe: Recipe, start: Position) -> Iterator[PlannedBatch]:
    """All batches from a position on, for ever; updates run on across the ends of epochs."""
    accumulate = recipe.optim.accumulate
    batches = _batches(durations_s, recipe, start.epoch, start.batch)
    for step in itertools.count(start.step):
        group = list(itertools.islice(batches, accumulate))
        epoch, number, _ = group[-1]
        for slot, (its_epoch, its_number, indices) in enumerate(group):
            yield PlannedBatch(step, slot, its_epoch, its_number, tuple(indices), after=(epoch, number + 1))


def _batches(
    durations_s: Sequence[float], recipe: Recipe, epoch: int, first: int
) -> Iterator[tuple[int, int, list[int]]]:
    """Epoch, number and examples of each batch from number `first` of `epoch` on."""
    if not durations_s:
        raise ValueError("there is no utterance to train on")
    while True:
        order = epoch_batches(
            durations_s,
            range(len(durations_s)),
            batch_s=recipe.data.batch_s,
            seed=recipe.seed,
            epoch=epoch,
            shortest_first=epoch < recipe.data.short_first_epochs,
        )
        for number, indices in enumerate(order):
            if number >= first:
                yield epoch, number, indices
        epoch, first = epoch + 1, 0
