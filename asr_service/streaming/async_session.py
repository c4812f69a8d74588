"""A session on an event loop: pushing waits for room, updates are awaited."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from asr_service.audio import StreamDecoder
from asr_service.config import EndpointingSettings, StreamSettings
from asr_service.engine.interface import Engine
from asr_service.errors import AsrError, InternalError, SlowConsumer
from asr_service.streaming.session import Session
from asr_service.streaming.updates import StreamUpdate
from asr_service.types import SAMPLE_RATE_HZ, RecognitionConfig

# A message may decode to so much audio, some milliseconds of work, before other streams have their turn.
PAUSE_SAMPLES = SAMPLE_RATE_HZ
# It may also be much work for little audio (headers, small pages), so as many bytes have their pause too.
PAUSE_BYTES = 64 * 1024

log = logging.getLogger("asr.session")


class LoopWaker:
    """Runs call-backs on an event loop, asked for on another thread.

    Those asked for in one engine turn share one `call_soon_threadsafe`, whose cost (a write to the loop's socket, and
    the interpreter lock changing hands) would otherwise come once for each stream of the batch.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting: dict[Callable[[], None], None] = {}  # a set that keeps the order

    def wake(self, callback: Callable[[], None]) -> None:
        with self._lock:
            scheduled = bool(self._waiting)
            self._waiting[callback] = None
        if not scheduled:
            try:
                self._loop.call_soon_threadsafe(self._run)
            except RuntimeError:  # the loop has been closed: nobody waits any more
                with self._lock:
                    self._waiting.clear()

    def _run(self) -> None:
        with self._lock:
            callbacks, self._waiting = self._waiting, {}
        for callback in callbacks:
            try:
                callback()
            except Exception:  # one of many streams': the others' call-backs are still to come
                log.exception("a call-back failed")


class AsyncSession:
    """One recognition stream on an event loop.

    One task pushes and finishes, one reads `updates`. Whatever happens, `close` in a `finally`.

    Raises:
        NoCapacity, ShuttingDown: when the engine takes no more streams.
    """

    def __init__(
        self,
        engine: Engine,
        config: RecognitionConfig,
        *,
        decoder: StreamDecoder,
        waker: LoopWaker,
        settings: StreamSettings,
        endpointing: EndpointingSettings,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()  # for the reader of updates
        self._room = asyncio.Event()  # for the pusher
        self._gave_up: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_deadline = math.inf
        self._waits_for_message = True
        refresh = self._on_wake
        self._session = Session(
            engine,
            config,
            decoder=decoder,
            wake=lambda: waker.wake(refresh),
            settings=settings,
            endpointing=endpointing,
        )
        self._refresh()

    @property
    def session(self) -> Session:
        """The session itself, to look at."""
        return self._session

    async def push(self, data: bytes) -> None:
        """Decode and feed bytes, with pauses in a large message; waits while too much audio is queued.

        Raises:
            InvalidAudio, TooManyMessages: see `Session.decode`.
        """
        # Pieces of one size: a short last one might have to wait for more bytes.
        pieces = max(1, math.ceil(len(data) / PAUSE_BYTES))
        size = math.ceil(len(data) / pieces)
        for k in range(pieces):
            if k:
                await asyncio.sleep(0)
            await self._feed(self._session.decode(data[k * size : (k + 1) * size]))

    async def flush(self) -> None:
        """End the current utterance after all that was pushed, but what resampler, mixer and front end still hold back:
        up to 0.3 s belong to the next one.
        """
        await self._feed(self._session.decode_pending())
        self._session.flush()

    def keep_alive(self) -> None:
        self._session.keep_alive()
        self._refresh()

    async def finish(self) -> None:
        """No more audio. Raises InvalidAudio where it is cut off."""
        await self._feed(self._session.decode_rest())
        self._session.finish()
        self._refresh()

    def end_early(self, error: AsrError) -> None:
        """Give the finals of what was fed, then end with the error."""
        self._session.finish(error)
        self._refresh()

    def fail(self, error: AsrError) -> None:
        """End now with the error, after the updates that wait."""
        self._session.fail(error)
        self._refresh()

    async def updates(self) -> AsyncIterator[StreamUpdate]:
        """Updates as they come, until the end.

        Raises:
            AsrError: what the session ended with, after its last update.
        """
        while True:
            update = self._session.take()
            self._refresh()
            if update is not None:
                yield update
            elif self._session.end is not None:
                if self._session.error is not None:
                    raise self._session.error
                return
            else:
                await self._changed.wait()

    async def deliver(self, write: Awaitable[None]) -> None:
        """Await a write to the client, but not beyond the client's patience limit.

        Raises:
            SlowConsumer: the client has read nothing for too long.
        """
        task = asyncio.ensure_future(write)
        try:
            await asyncio.wait({task, self._gave_up}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._gave_up.result()
            await task
        finally:
            task.cancel()

    def close(self) -> None:
        """Free everything. Idempotent."""
        self._session.close()
        self._refresh()
        self._stop_timer()
        if not self._gave_up.cancel() and not self._gave_up.cancelled():
            self._gave_up.exception()  # retrieved, so that asyncio does not report it

    async def _feed(self, blocks: Iterable[NDArray[np.float32]]) -> None:
        self._waits_for_message = False
        waited = False
        unpaused = 0
        for block in blocks:
            if unpaused >= PAUSE_SAMPLES:
                await asyncio.sleep(0)
                unpaused = 0
            unpaused += len(block)
            while not self._session.has_room:
                waited = True
                await self._room.wait()
            if not self._session.takes_audio:
                break
            self._session.feed(block)
            self._refresh()
        self._waits_for_message = True
        if waited:
            self._session.reading_resumed()
        else:
            self._session.audio_arrived()
        self._refresh()

    def _on_wake(self) -> None:
        try:
            self._session.collect()
        except Exception:
            log.exception("an output of the engine could not be made an update")
            self._session.fail(InternalError("internal error: a result could not be told"))
        self._refresh()

    def _refresh(self) -> None:
        """Set the events and the timer to what the session is now."""
        session = self._session
        _set(self._room, session.has_room)
        _set(self._changed, session.has_updates or session.end is not None)
        deadlines = (session.idle_deadline, session.slow_consumer_deadline)
        deadline = min((deadline for deadline in deadlines if deadline is not None), default=math.inf)
        # A deadline that has moved on needs no new timer: the old one looks again. This is called for each message.
        if deadline < self._timer_deadline:
            self._stop_timer()
            self._timer_deadline = deadline
            self._timer = self._loop.call_later(max(0.0, deadline - session.now()), self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_deadline = None, math.inf

    def _on_timer(self) -> None:
        self._stop_timer()
        try:
            self._session.check_slow_consumer()
            if self._waits_for_message:
                self._session.check_idle()
            elif self._session.takes_audio:
                self._session.reading_resumed()  # we do not read; the client may have audio for us
        except SlowConsumer as error:
            self._session.fail(error)
            if not self._gave_up.done():
                self._gave_up.set_exception(error)
        except AsrError as error:
            self._session.finish(error)  # who stopped sending in mid-sentence still gets what was said
        self._refresh()


def _set(event: asyncio.Event, on: bool) -> None:
    if on:
        event.set()
    else:
        event.clear()
