"""The streams that are open now: answered, and ended exactly once each. A failure stays in its stream."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from asr_service.engine.interface import Failed, Final, Finished, Sink, StreamHandle, StreamOutput
from asr_service.engine.isolation import each
from asr_service.engine.runner import Encoded
from asr_service.engine.slots import SlotTable
from asr_service.engine.stream import Stream
from asr_service.errors import AsrError, EngineFailure
from asr_service.parts import Parts
from asr_service.types import Hypothesis

logger = logging.getLogger(__name__)

Row = TypeVar("Row")

# Outputs of a turn go out together, so that an event loop is woken once for all of them; but none waits longer than
# this for the others' searches.
DELIVERY_S = 0.02


class OpenStreams:
    """By handle. Belongs to the engine's thread.

    Attributes:
        failures: batches in a row in which every row failed, also alone.
    """

    def __init__(self, slots: SlotTable) -> None:
        self._slots = slots
        self._streams: dict[StreamHandle, Stream] = {}
        self._on_end: list[Callable[[Stream], None]] = []
        self._outputs: list[tuple[Sink, StreamOutput]] = []
        self._oldest = 0.0  # of them: when it was put there
        self.failures = 0

    def __iter__(self) -> Iterator[Stream]:
        return iter(tuple(self._streams.values()))

    def __contains__(self, stream: Stream) -> bool:
        return stream.handle in self._streams

    def get(self, handle: StreamHandle) -> Stream | None:
        return self._streams.get(handle)

    def on_end(self, forget: Callable[[Stream], None]) -> None:
        """Call this with every stream that ends, however it does."""
        self._on_end.append(forget)

    def add(self, stream: Stream) -> None:
        self._streams[stream.handle] = stream

    def put(self, stream: Stream, output: StreamOutput) -> None:
        """Let this go out with the next `deliver`."""
        if not self._outputs:
            self._oldest = time.perf_counter()
        self._outputs.append((stream.sink, output))

    def deliver(self, *, older_than_s: float = 0.0) -> None:
        """Send what was put, in order, if the oldest of it has waited so long."""
        if self._outputs and time.perf_counter() - self._oldest >= older_than_s:
            outputs, self._outputs = self._outputs, []
            for sink, output in outputs:
                sink(output)

    def answer(
        self, stream: Stream, alternatives: tuple[Hypothesis, ...], start_s: float, end_s: float, *, is_last: bool
    ) -> None:
        """An utterance is done; with the last one, so is the stream."""
        if alternatives:
            self.put(stream, Final(alternatives, stream.utterance_index, start_s, end_s))
            stream.utterance_index += 1
        if is_last:
            self.end(stream, Finished())

    def guard(self, stream: Stream, action: Callable[[], object]) -> None:
        """Run `action`; an exception ends this stream only."""
        try:
            action()
        except AsrError as error:
            self.end(stream, Failed(error))
        except Exception:
            logger.exception("stream in slot %d failed", stream.handle.slot)
            self.end(stream, Failed(EngineFailure("the model failed on this stream")))

    def encode(
        self, run: Callable[[Sequence[Row]], Parts[list[Encoded]]], rows: Sequence[Row], streams: Sequence[Stream]
    ) -> Parts[list[Encoded | None]]:
        """Encode the streams' rows in one batch; a stream whose row fails also alone ends, with None for the row."""
        if not rows:
            return []
        results = yield from each(run, rows)
        failed = [isinstance(result, Exception) for result in results]
        self.failures = self.failures + 1 if all(failed) else 0
        for stream, has_failed in zip(streams, failed, strict=True):
            if has_failed and stream in self:  # several rows may be of one stream
                self.end(stream, Failed(EngineFailure("the model failed on this stream")))
        return [None if isinstance(result, Exception) else result for result in results]

    def end(self, stream: Stream, output: StreamOutput) -> None:
        """With this terminal output."""
        self.free(stream)
        self.put(stream, output)

    def free(self, stream: Stream) -> None:
        """Without any further output. Idempotent."""
        if self._streams.pop(stream.handle, None) is not None:
            for forget in self._on_end:
                forget(stream)
            self._slots.release(stream.handle)
