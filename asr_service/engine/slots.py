"""The slot table: who holds which row of the caches. No tensors; thread-safe."""

from __future__ import annotations

import threading

from asr_service.engine.interface import StreamHandle
from asr_service.errors import NoCapacity


class SlotTable:
    """A fixed number of slots. A slot's generation grows at each release, so late messages for it are told apart."""

    def __init__(self, slots: int) -> None:
        self._generations = [0] * slots
        self._free = list(range(slots))[::-1]
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        return len(self._generations) - len(self._free)

    def acquire(self) -> StreamHandle:
        """Raises NoCapacity when every slot is taken."""
        with self._lock:
            if not self._free:
                raise NoCapacity(f"all {len(self._generations)} streams are taken")
            slot = self._free.pop()
            return StreamHandle(slot, self._generations[slot])

    def release(self, handle: StreamHandle) -> None:
        """Free a slot; a handle of an earlier generation changes nothing."""
        with self._lock:
            if self._generations[handle.slot] == handle.generation:
                self._generations[handle.slot] += 1
                self._free.append(handle.slot)
