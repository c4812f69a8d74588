"""The engine builds what calls with phrase hints need on a thread of its own, before their streams open."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from asr_service.config import PhraseHintSettings
from asr_service.engine.interface import Engine
from asr_service.errors import AsrError, NoCapacity
from asr_service.types import RecognitionConfig


@dataclass(frozen=True, slots=True)
class _Build:
    """What a call waits for, on its event loop."""

    engine: Engine
    config: RecognitionConfig
    loop: asyncio.AbstractEventLoop
    made: asyncio.Future[object]

    def run(self) -> None:
        if self.made.done():  # nobody waits for it any more
            return
        result: object = None
        error: Exception | None = None
        try:
            result = self.engine.prepare(self.config.mode, self.config.phrase_hints)
        except Exception as failure:  # noqa: BLE001  # it is the call's
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            self.loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: object, error: Exception | None) -> None:
        if self.made.done():
            return
        if error is not None:
            self.made.set_exception(error)
        else:
            self.made.set_result(result)


class HintPreparation:
    """Has the engine build what calls with phrase hints need, on one thread beside the event loop and the engine's.

    The thread is there while something is to be built. It is a daemon, which the end of the process does not wait for.
    """

    def __init__(self, settings: PhraseHintSettings) -> None:
        self._most = settings.max_waiting
        self._waiting: set[asyncio.Future[object]] = set()
        self._lock = threading.Lock()  # of the two below
        self._builds: deque[_Build] = deque()
        self._builds_now = False

    async def prepare(self, engine: Engine, config: RecognitionConfig) -> object:
        """Wait until `engine.open` will be quick, as it is while the result is held.

        Raises NoCapacity where too many calls wait already, or all streams are taken or waited for: what is built for
        nobody would still slow those that run. Raises what `refuse` says.
        """
        if not config.phrase_hints:
            return None
        if (ready := engine.ready(config.mode, config.phrase_hints)) is not None:
            return ready  # however many others wait for theirs
        if len(self._waiting) >= self._most:
            raise NoCapacity(
                f"{len(self._waiting)} calls with phrase hints wait to begin, as many as this server lets wait"
            )
        if engine.active_streams + len(self._waiting) >= (most := engine.info.max_streams):
            raise NoCapacity(f"all {most} streams are taken, or will be by calls that wait for their phrase hints")
        loop = asyncio.get_running_loop()
        made: asyncio.Future[object] = loop.create_future()
        self._waiting.add(made)
        try:
            self._add(_Build(engine, config, loop, made))
            return await made
        finally:
            self._waiting.discard(made)

    def refuse(self, error: Callable[[], AsrError]) -> None:
        """Let no call wait any longer: they fail, each with an error of its own."""
        for made in self._waiting:
            if not made.done():
                made.set_exception(error())

    def _add(self, build: _Build) -> None:
        with self._lock:
            self._builds.append(build)
            if self._builds_now:
                return
            self._builds_now = True
        threading.Thread(target=self._run, name="phrase-hints", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._builds:
                    self._builds_now = False
                    return
                build = self._builds.popleft()
            build.run()
