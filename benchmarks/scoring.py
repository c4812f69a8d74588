"""How long scoring takes, and how much memory: made-up pairs of about 20 words, with the bootstrap interval.

    python -m benchmarks.scoring [--pairs 10000 50000 100000] [--normalizer basic] [--costs equal]

One process and one thread. Each size runs in a process of its own, so that its peak of memory is its own. The seconds
are the clock's, and beside them the processor's: on a busy machine only these tell.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import time
from collections.abc import Iterator

from asr_service.evaluation import Output, Reference, score
from asr_service.evaluation.alignment import COSTS
from asr_service.evaluation.normalizer import NORMALIZERS

VOCABULARY = 20_000
SPEAKERS = 200
ERROR_RATE = 0.12


def pairs(count: int, seed: int = 0) -> tuple[list[Reference], list[Output]]:
    """References of 10 to 30 words of 2 to 9 letters, and outputs with substitutions, deletions and insertions."""
    generator = random.Random(seed)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 9))) for _ in range(VOCABULARY)]
    references, outputs = [], []
    for number in range(count):
        said = generator.choices(words, k=generator.randint(10, 30))
        name, speaker = f"utterance-{number:06d}", f"speaker-{number % SPEAKERS}"
        references.append(Reference(name, " ".join(said).capitalize() + ".", speaker=speaker))
        outputs.append(Output(name, " ".join(_misheard(said, words, generator))))
    return references, outputs


def _misheard(said: list[str], words: list[str], generator: random.Random) -> Iterator[str]:
    for word in said:
        kind = generator.randrange(3) if generator.random() < ERROR_RATE else None
        if kind != 0:
            yield generator.choice(words) if kind == 1 else word
        if kind == 2:
            yield generator.choice(words)


def measure(count: int, normalizer: str, costs: str) -> str:
    references, outputs = pairs(count)
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    evaluation = score(references, outputs, normalizer=normalizer, costs=costs)
    interval = evaluation.wer_interval
    elapsed_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
    interval_percent = f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]"
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{count:7d} pairs  {elapsed_s:6.1f} s  processor {cpu_s:6.1f} s  {1e6 * cpu_s / count:5.0f} µs a pair  "
        f"peak {peak_mb:4.0f} MiB  WER {100 * evaluation.wer:.2f} % {interval_percent} "
        f"over {interval.over}, {evaluation.normalizer}, costs {evaluation.costs}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 50_000, 100_000])
    parser.add_argument("--normalizer", choices=list(NORMALIZERS), default="basic")
    parser.add_argument("--costs", choices=COSTS, default="equal")
    arguments = parser.parse_args()
    for count in arguments.pairs:
        with multiprocessing.get_context("spawn").Pool(1) as process:
            print(process.apply(measure, (count, arguments.normalizer, arguments.costs)), flush=True)


if __name__ == "__main__":
    main()
