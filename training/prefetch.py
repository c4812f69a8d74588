"""Batches made ahead of the loop that needs them, by one process of its own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from torch.utils.data import DataLoader, Dataset

from training.loss import Batch

# A worker told to end goes on for so long: the loop, told the same, finishes its step and saves in the meantime.
GRACE_S = 30


class Planned(Protocol):
    """What a batch is made from: its place in the data, its update, and its examples."""

    @property
    def step(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def number(self) -> int: ...
    @property
    def indices(self) -> Sequence[int]: ...


Plan = TypeVar("Plan", bound=Planned)


class _Made(Dataset[tuple[Planned, Batch]]):
    """The batches by their plan, as a DataLoader asks for them."""

    def __init__(self, make: Callable[[Planned], Batch]) -> None:
        self._make = make

    def __getitem__(self, planned: Planned) -> tuple[Planned, Batch]:
        return planned, self._make(planned)


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_S))


def prefetched(plans: Iterable[Plan], make: Callable[[Plan], Batch], *, depth: int) -> Iterator[tuple[Plan, Batch]]:
    """Each plan with its batch, in order; with a `depth`, up to so many are made ahead in another process.

    That process has one torch thread, ends with this one, and its errors are raised here with their traceback. `make`
    must be picklable, and a function of the plan alone: then the batches are the same for every depth.
    """
    loader: DataLoader[tuple[Plan, Batch]] = DataLoader(
        _Made(make),  # type: ignore[arg-type]
        batch_size=None,
        sampler=plans,
        num_workers=1 if depth else 0,
        prefetch_factor=depth or None,
        worker_init_fn=_start_worker,
        # A fresh interpreter: a fork would share locks, signal handlers and a GPU's context with the loop.
        multiprocessing_context="spawn" if depth else None,
    )
    yield from loader
