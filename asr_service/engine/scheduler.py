"""What the engine does next: no tensors, no clocks, only who has waited longest.

Two lanes. Live chunks go first, many in one batch; then one whole utterance (an accurate-mode endpoint), so that files
never hold up somebody who is speaking.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from asr_service.engine.stream import Stream, Work


@dataclass(frozen=True, slots=True)
class Plan:
    """One turn: chunks to encode in one batch, and at most one whole utterance."""

    chunks: tuple[tuple[Stream, Work], ...]
    whole: tuple[Stream, Work] | None

    @property
    def empty(self) -> bool:
        return not self.chunks and self.whole is None


def plan(streams: Iterable[Stream], *, max_batch: int) -> Plan:
    """Pick the work of one turn: of each lane, the streams whose work has been ready longest."""
    ready = sorted(
        ((stream, work) for stream in streams if (work := stream.work()) is not None),
        key=lambda pair: (pair[1].ready_since, pair[0].handle.slot),
    )
    chunks = tuple(pair for pair in ready if not pair[1].whole)[:max_batch]
    return Plan(chunks, next((pair for pair in ready if pair[1].whole), None))
