"""Does the event loop of 64 live streams slow the engine's thread down? One ratio says whether it needs a process.

A real server in this process, its engine's encoder steps timed where they happen; the streams come from a process of
their own, in messages of 20 ms at the pace of speech. Then, with no stream open, the very same steps are made again:
the same slots, chunks and lengths, on the same runner, in a thread of the same kind. The first over the second is what
the interpreter lock costs (over 1.3: the engine needs a process of its own).

The engine's thread, the event loop and the generator want a core each; with fewer, they wait for one too. That wait is
known (the run queue's, /proc/thread-self/schedstat of Linux) and taken off: what is left is work and the lock.

    python -m benchmarks.interpreter_lock dev.jsonl --streams 64 --seconds 30
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from asr_service.config import Settings
from asr_service.engine.engine import BatchingEngine
from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR, load_bundle
from asr_service.server.app import ServerThread

REPEATS = 3


@dataclasses.dataclass
class Step:
    """One call of the encoder: what it was given; seconds it took, and of those in which it waited for a core."""

    arguments: tuple[Any, ...]
    wall_s: float
    queued_s: float


class TimedSteps:
    """Stands in for `encode_chunks` of an engine's runner, and times it; keeps at most `limit` steps."""

    def __init__(self, encode: Any, limit: int) -> None:
        self._encode, self._limit = encode, limit
        self.steps: list[Step] = []

    def __call__(self, *arguments: Any) -> Any:
        queued, begun = waited_for_core_s(), time.perf_counter()
        encoded = self._encode(*arguments)
        wall_s = time.perf_counter() - begun
        if len(self.steps) < self._limit:
            self.steps.append(Step(arguments, wall_s, waited_for_core_s() - queued))
        return encoded

    def again(self, steps: Sequence[Step]) -> list[Step]:
        """The same steps with nobody beside them, in a thread; each the median of three."""
        rounds: list[list[Step]] = []

        def work() -> None:
            for _ in range(REPEATS):
                self.steps = []
                for step in steps:
                    self(*step.arguments)
                rounds.append(self.steps)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return [sorted(same, key=took)[REPEATS // 2] for same in zip(*rounds, strict=True)]


def waited_for_core_s() -> float:
    """Of this thread so far: ready to run, but on no core."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def took(step: Step) -> float:
    return step.wall_s - step.queued_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", type=Path, default=SHIPPED_DIR / DEFAULT_MODEL)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--message-ms", type=int, default=20)
    parser.add_argument("--steps", type=int, default=150, help="most that are made again")
    arguments = parser.parse_args()

    settings = Settings()
    settings = dataclasses.replace(
        settings,
        server=dataclasses.replace(settings.server, address="localhost:0", drain_s=0.0),
        engine=dataclasses.replace(settings.engine, max_streams=arguments.streams),
    )
    engine = BatchingEngine(load_bundle(arguments.model), settings.engine)
    runner = engine._runner  # noqa: SLF001 -- the step is timed from within, and nothing else needs it
    timed = TimedSteps(runner.encode_chunks, arguments.steps)
    runner.encode_chunks = timed  # type: ignore[method-assign]
    with ServerThread(settings, lambda: engine) as address:
        load(arguments, address, streams=1, seconds=3.0)  # the first use of anything is slower
        timed.steps = []
        spent = time.process_time()
        print(load(arguments, address, streams=arguments.streams, seconds=arguments.seconds))
        spent = time.process_time() - spent
        report(timed.steps, timed.again(timed.steps))
        print(f"this process took {spent:.1f} s of processor time under load, event loop and searches with it")


def load(arguments: argparse.Namespace, address: str, *, streams: int, seconds: float) -> str:
    command = [sys.executable, "-m", "asr_service.cli", "bench", "live", str(arguments.manifest), "--server", address]
    command += ["--model", str(arguments.model), "--streams", str(streams), "--seconds", str(seconds), "--no-alone"]
    command += ["--message-ms", str(arguments.message_ms)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def report(steps: Sequence[Step], alone: Sequence[Step]) -> None:
    rows = np.array([len(step.arguments[0]) for step in steps])
    loaded, quiet = np.array([took(step) for step in steps]), np.array([took(step) for step in alone])
    for low, high in ((1, 2), (3, 8), (9, 16), (17, 32), (33, 64), (65, 4096)):
        chosen = (rows >= low) & (rows <= high)
        if chosen.any():
            with_streams, without = 1000 * np.median(loaded[chosen]), 1000 * np.median(quiet[chosen])
            print(
                f"{chosen.sum():4d} steps of {low} to {min(high, rows.max())} chunks, medians: {with_streams:.2f} ms "
                f"with streams, {without:.2f} ms without: {with_streams / without:.2f} x"
            )
    ratio = loaded / quiet
    print(
        f"all {len(steps)} steps: {loaded.sum() / quiet.sum():.2f} x in total, each p50 {np.median(ratio):.2f} x, "
        f"p95 {np.percentile(ratio, 95):.2f} x"
    )
    queued = [sum(step.queued_s for step in group) / sum(step.wall_s for step in group) for group in (steps, alone)]
    print(
        f"of the wall clock, waiting for a core: {100 * queued[0]:.0f} % with streams, {100 * queued[1]:.0f} % without"
    )


if __name__ == "__main__":
    main()
