"""The trees of streams with phrase hints: built one at a time, and found without a wait for the one that is built."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from asr_service.config import PhraseHintSettings
from asr_service.decoding.hinted_tree import HintedTree
from asr_service.types import PhraseHint

# What a tree is for, and the weight of the n-gram in its search.
TreeKey = tuple[tuple[PhraseHint, ...], float]


class Hold:
    """Keeps a tree as long as anybody has this."""


@dataclass(slots=True)
class _Entry:
    tree: HintedTree | None
    hold: weakref.ref[Hold] | None = None

    @property
    def is_held(self) -> bool:
        return self.hold is not None and self.hold() is not None


class HintedTrees:
    """Those that are held, and the last `KEPT_TREES` besides. Thread-safe.

    A call waits for its tree on one thread and opens its stream on another: until it does, its hold keeps the tree,
    however many others are built meanwhile. Their order is that of `prepare`, not of use: where calls open their
    streams in the order in which they were prepared, the tree whose hold was just let go is the last to be dropped.
    """

    def __init__(self, build: Callable[[tuple[PhraseHint, ...], float], HintedTree | None]) -> None:
        self._build = build
        # One at a time: streams that bring the same phrases at once wait for one tree instead of building each its own.
        self._building = threading.Lock()
        self._looking = threading.Lock()  # at the entries; for no longer than that
        self._entries: dict[TreeKey, _Entry] = {}

    def get(self, key: TreeKey) -> HintedTree | None:
        """Build, or find again. What was prepared and is held is found at once."""
        return self._entry(key).tree

    def prepare(self, key: TreeKey) -> Hold:
        """As `get`, and keep it while the result is held."""
        entry = self._entry(key)
        with self._looking:
            return self._hold(key, self._entries.get(key, entry))  # where it was built again meanwhile, that one

    def ready(self, key: TreeKey) -> Hold | None:
        """As `prepare` where the tree is there; None where it would have to be built. Waits for nobody's."""
        with self._looking:
            entry = self._entries.get(key)
            return self._hold(key, entry) if entry is not None else None

    def _hold(self, key: TreeKey, entry: _Entry) -> Hold:
        """Make it the last in the order, with `_looking` held."""
        self._entries.pop(key, None)
        hold = (entry.hold() if entry.hold is not None else None) or Hold()
        entry.hold = weakref.ref(hold)
        self._add(key, entry)
        return hold

    def _entry(self, key: TreeKey) -> _Entry:
        if (found := self._found(key)) is not None:
            return found
        with self._building:
            if (found := self._found(key)) is not None:
                return found
            entry = _Entry(self._build(*key))
            with self._looking:
                self._add(key, entry)
            return entry

    def _found(self, key: TreeKey) -> _Entry | None:
        with self._looking:
            return self._entries.get(key)

    def _add(self, key: TreeKey, entry: _Entry) -> None:
        self._entries[key] = entry
        free = [other for other, kept in self._entries.items() if not kept.is_held]
        for other in free[: -PhraseHintSettings.KEPT_TREES]:
            del self._entries[other]
