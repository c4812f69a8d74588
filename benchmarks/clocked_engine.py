"""Where an engine's time goes: front end, encoder, search, partials, final pass, and what is left."""

from __future__ import annotations

import inspect
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asr_service.engine.engine import BatchingEngine
from asr_service.engine.interface import StreamOptions
from asr_service.parts import Parts


@dataclass
class Spent:
    """Processor seconds of the whole process, wall seconds, and the engine thread's seconds by part."""

    cpu_s: float
    wall_s: float
    parts: dict[str, float]


def clocked_parts(parts: Parts[Any], spend: Callable[[float], None]) -> Parts[Any]:
    """The same parts; `spend` is told the processor seconds of each, not of what goes on between two of them."""
    while True:
        begun = time.thread_time()
        try:
            next(parts)
        except StopIteration as done:
            return done.value
        finally:
            spend(time.thread_time() - begun)
        yield


class Clocked:
    """Clocks an engine's parts where they are called; `measure` says what a piece of work took."""

    def __init__(self, engine: BatchingEngine) -> None:
        self._parts: dict[str, float] = defaultdict(float)
        # The parts are private, and nothing but a benchmark needs a clock in them.
        runner, space = engine._runner, engine._space  # noqa: SLF001
        self._clock(runner, "features", "features")
        self._clock(runner, "encode_chunks", "encoder")
        self._clock(runner, "utterance_parts", "encoder")
        searches = space.searches

        def clocked_searches(options: StreamOptions) -> Callable[[], Any]:
            make = searches(options)

            def make_clocked() -> Any:
                search = make()
                for method, part in (("step", "search"), ("partial", "partials"), ("final_parts", "final pass")):
                    self._clock(search, method, part)
                return search

            return make_clocked

        space.searches = clocked_searches  # type: ignore[method-assign]

    def _clock(self, owner: Any, method: str, part: str) -> None:
        function = getattr(owner, method)

        def clocked(*arguments: Any, **named: Any) -> Any:
            begun = time.thread_time()
            try:
                result = function(*arguments, **named)
            finally:
                self._parts[part] += time.thread_time() - begun
            return clocked_parts(result, spend) if inspect.isgenerator(result) else result

        def spend(seconds: float) -> None:
            self._parts[part] += seconds

        setattr(owner, method, clocked)

    def measure(self, work: Callable[[], Any]) -> tuple[Any, Spent]:
        self._parts.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        return result, Spent(time.process_time() - cpu, time.perf_counter() - wall, dict(self._parts))
