"""An engine whose turns a test takes one by one."""

from __future__ import annotations

from asr_service.engine.engine import BatchingEngine


class Stepped(BatchingEngine):
    """Without its thread: one turn when it is told so."""

    def start(self) -> None:
        pass

    def settle(self) -> None:
        while self._turn():
            pass
