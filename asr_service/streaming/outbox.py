"""Updates that wait for a client to read them."""

from __future__ import annotations

from collections import deque

from asr_service.streaming.updates import StreamUpdate


class Outbox:
    """A queue in which interims replace each other and nothing else is ever dropped.

    At most one interim waits: an utterance's newer interim takes the place of its older one, and its final drops it.
    What else waits is bounded by the stream: it feeds the engine no audio while `is_full`.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._updates: deque[StreamUpdate] = deque()

    def __len__(self) -> int:
        return len(self._updates)

    @property
    def is_full(self) -> bool:
        return len(self._updates) >= self._capacity

    def put(self, update: StreamUpdate) -> None:
        if update.results:
            utterance = update.results[0].utterance_index
            for place, waiting in enumerate(self._updates):
                if waiting.interim_of == utterance:
                    del self._updates[place]
                    break
        self._updates.append(update)

    def take(self) -> StreamUpdate | None:
        """The oldest update, or None."""
        return self._updates.popleft() if self._updates else None

    def clear(self) -> None:
        self._updates.clear()
