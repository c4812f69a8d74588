"""Does a server grow with the clients that come and go? N times connect, two seconds of speech, and away.

Half of the clients end properly and read their finals. The others leave in the middle, in turns: the call is cancelled
(RST_STREAM), the connection is closed below the call, or the TCP connection is reset, as when a machine dies. Each has
a connection of its own, to a server in a process of its own; C at a time, as fast as the server takes it. After every
batch, when all have gone, the server's resident memory is read; the slope is fitted to the samples after the warm-up.

    python -m benchmarks.churn dev.jsonl --cycles 10000 --concurrent 16 --json churn.json --png churn.png
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from asr_service.bench.clips import linear16
from asr_service.bench.figures import slope
from asr_service.bench.process_usage import usage
from asr_service.client import AsyncClient, ServiceError
from asr_service.commands.server_process import ServerProcess
from asr_service.evaluation.provenance import provenance
from benchmarks.engine_in_process import recordings
from benchmarks.relay import Relay

AUDIO_S = 2.0
MESSAGE_BYTES = 3200  # 100 ms
SPEECHES = 50
PROPER, CANCEL, CLOSE, RESET = "proper", "cancelled", "closed", "reset"
TURNS = (PROPER, CANCEL, PROPER, CLOSE, PROPER, RESET)
SETTLE_S = 0.5
PATIENCE_S = 60.0


async def cycle(address: str, speech: bytes, kind: str, stay_s: float) -> str:
    """One client; returns what became of it."""
    sent = asyncio.Event()

    async def messages() -> AsyncIterator[bytes]:
        for start in range(0, len(speech), MESSAGE_BYTES):
            yield speech[start : start + MESSAGE_BYTES]
        sent.set()
        if kind != PROPER:
            await asyncio.sleep(PATIENCE_S)  # no half-close: it is gone before

    async def listen(client: AsyncClient) -> None:
        options = {"encoding": "LINEAR16", "sample_rate_hertz": 16_000, "interim_results": True}
        async for _ in client.stream(messages(), mode="streaming", **options):
            pass

    async with contextlib.AsyncExitStack() as stack:
        relay = await stack.enter_async_context(Relay(int(address.rpartition(":")[2]))) if kind == RESET else None
        client = await stack.enter_async_context(AsyncClient(relay.address if relay else address, own_connection=True))
        listening = asyncio.create_task(listen(client))
        try:
            if kind == PROPER:
                await asyncio.wait_for(listening, PATIENCE_S)
                return PROPER
            await asyncio.wait([listening, asyncio.create_task(sent.wait())], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(stay_s)
            if listening.done():
                await listening
            elif kind == CLOSE:
                await client.close()
            elif relay is not None:
                relay.reset()
        except ServiceError as error:
            return f"{kind}, but {error.status}"
        except TimeoutError:
            return f"{kind}, but no end after {PATIENCE_S:g} s"
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    return kind


async def churn(arguments: argparse.Namespace, server: ServerProcess, speeches: list[bytes]) -> None:
    chance, room = random.Random(0), asyncio.Semaphore(arguments.concurrent)
    outcomes: Counter[str] = Counter()
    samples: list[tuple[int, float]] = []

    async def one(number: int) -> None:
        async with room:
            kind, speech = TURNS[number % len(TURNS)], speeches[number % len(speeches)]
            outcomes[await cycle(server.address, speech, kind, chance.uniform(0.0, 0.3))] += 1

    begun = time.monotonic()
    for first in range(0, arguments.cycles, arguments.batch):
        await asyncio.gather(*(one(first + number) for number in range(arguments.batch)))
        await asyncio.sleep(SETTLE_S)
        used = usage(server.pid)
        if used is None:
            raise RuntimeError("the server has ended")
        samples.append((first + arguments.batch, used.resident_bytes / 1024))
        fitted = slope([sample for sample in samples if sample[0] > arguments.warm_up])
        told = "" if fitted is None else f"; slope {fitted.per_s:+.3f} KiB a cycle (standard error {fitted.error:.3f})"
        minutes = (time.monotonic() - begun) / 60
        print(f"{samples[-1][0]:6d} cycles, {samples[-1][1] / 1024:.2f} MiB, {minutes:.1f} min{told}", flush=True)
        content = {"about": provenance([]), "options": vars(arguments), "outcomes": outcomes, "samples_kib": samples}
        content["slope_kib"] = None if fitted is None else (fitted.per_s, fitted.error)
        if arguments.json:
            arguments.json.write_text(json.dumps(content, indent=1, default=str) + "\n")
        if arguments.png:
            draw(arguments.png, samples, arguments.warm_up, told)
    print(", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()))


def draw(path: Path, samples: list[tuple[int, float]], warm_up: int, told: str) -> None:
    from matplotlib.figure import Figure

    page = Figure(figsize=(8, 4.5), layout="constrained")
    axes = page.subplots()
    axes.plot([cycles for cycles, _ in samples], [kib / 1024 for _, kib in samples], ".-")
    axes.axvline(warm_up, color="grey", linestyle=":")
    axes.set(xlabel="clients that came and went", ylabel="resident memory (MiB)", title="Churn" + told)
    axes.set_ylim(bottom=0)
    page.savefig(path, format="png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", type=Path, help="default: the shipped model")
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--concurrent", type=int, default=16)
    parser.add_argument("--batch", type=int, default=100, help="clients between two samples")
    parser.add_argument("--warm-up", type=int, default=1000, help="cycles before those that the slope is fitted to")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    speeches = [linear16(row) for row in recordings(arguments.manifest, SPEECHES, AUDIO_S)]
    # Who has left may hold its place for a moment.
    with ServerProcess(arguments.model, "--max-streams", str(2 * arguments.concurrent)) as server:
        asyncio.run(churn(arguments, server, speeches))


if __name__ == "__main__":
    main()
