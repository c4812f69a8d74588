"""The next update's batches, made while the device still has this one's work to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")


class Ahead(Generic[T]):
    """Gives items one after the other; each may be made before it is asked for."""

    def __init__(self, items: Iterator[T], device: torch.device) -> None:
        self._items, self._device = items, device
        self._made: list[T] = []
        self._spans: list[tuple[Any, Any]] = []

    def make(self) -> None:
        """Make the next item now: `take` then has it at once."""
        begun = self._now()
        self._made.append(next(self._items))
        self._spans.append((begun, self._now()))

    def take(self) -> T:
        if not self._made:
            self.make()
        return self._made.pop(0)

    def waited_s(self) -> float:
        """How long the device had nothing to do but these items, since this was last asked.

        On the host that is the time it took to make them. On a GPU, which must have done all of it by now, it is what
        its own clock says from the end of its other work on: items that the host makes meanwhile keep it from nothing.
        """
        spans, self._spans = self._spans, []
        if self._device.type == "cuda":
            return float(sum(begun.elapsed_time(ended) for begun, ended in spans)) / 1e3
        return float(sum(ended - begun for begun, ended in spans))

    def _now(self) -> Any:
        """Seconds of the host, or an event in the GPU's queue."""
        if self._device.type != "cuda":
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
