"""What is made ahead comes in order, is made once, and the wait for it is told truly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from training.ahead import Ahead

CPU = torch.device("cpu")


def counted(made: list[int]) -> Iterator[int]:
    for number in itertools.count():
        made.append(number)
        yield number


def test_items_come_in_order_and_none_is_made_that_nobody_asked_for() -> None:
    made: list[int] = []
    items = Ahead(counted(made), CPU)
    assert made == []
    assert items.take() == 0
    assert made == [0]
    items.make()
    assert made == [0, 1]
    assert [items.take(), items.take()] == [1, 2]
    assert made == [0, 1, 2]


def test_the_wait_is_the_time_that_items_took_since_it_was_last_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.5, 20.0, 22.0])
    monkeypatch.setattr("training.ahead.time.monotonic", lambda: next(clock))
    items = Ahead(itertools.count(), CPU)
    items.take()
    assert items.waited_s() == 0.5
    assert items.waited_s() == 0.0
    items.make()
    items.take()
    assert items.waited_s() == 2.0


def test_on_a_gpu_the_wait_begins_where_its_other_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host asks at once; the GPU comes to the events when it has done what it was asked before."""
    reached_ms = iter([400.0, 430.0])

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at_ms = next(reached_ms)

        def elapsed_time(self, end: Event) -> float:
            return end.at_ms - self.at_ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    items = Ahead(itertools.count(), torch.device("cuda"))
    items.make()
    assert items.waited_s() == pytest.approx(0.03)
