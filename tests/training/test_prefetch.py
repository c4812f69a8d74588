"""Batches made ahead are those that the loop would have made; an error or a signal does not hang the run."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.training.conftest import Corpus
from training.dataset import BatchMaker
from training.loss import Batch
from training.prefetch import prefetched
from training.recipe import AugmentConfig

AUGMENT = AugmentConfig(
    start_step=1,
    noise_probability=0.7,
    gain_probability=0.5,
    telephone_probability=0.5,
    join_probability=0.5,
    babble_voices=(1, 2),
)


@dataclass(frozen=True)
class Plan:
    step: int
    epoch: int
    number: int
    indices: Sequence[int]


class Make:
    """The batch of a plan, by its place in the data."""

    def __init__(self, corpus: Corpus) -> None:
        # Two speakers, so that there is somebody to babble.
        examples = [dataclasses.replace(e, speaker=str(e.index % 2)) for e in corpus.examples]
        self.maker = BatchMaker(examples, corpus.store, corpus.front_end(), AUGMENT, torch.device("cpu"))

    def __call__(self, plan: Plan) -> Batch:
        return self.maker(plan.indices, f"{plan.epoch}/{plan.number}", augmented=plan.step > 0)


PLANS = [Plan(step, step // 2, step % 2, range(3 * (step % 2), 3 * (step % 2) + 3)) for step in range(5)]


def assert_equal(a: Batch, b: Batch) -> None:
    for field in dataclasses.fields(Batch):
        first, second = getattr(a, field.name), getattr(b, field.name)
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def test_a_worker_makes_the_batches_of_the_loop_in_order_and_wherever_it_begins(corpus: Corpus) -> None:
    here = list(prefetched(PLANS, Make(corpus), depth=0))
    there = list(prefetched(PLANS, Make(corpus), depth=2))
    resumed = list(prefetched(PLANS[3:], Make(corpus), depth=0))
    assert [plan for plan, _ in there] == PLANS
    for (_, a), (_, b) in zip(here, there, strict=True):
        assert_equal(a, b)
    for (_, a), (_, b) in zip(here[3:], resumed, strict=True):
        assert_equal(a, b)


class Probe:
    """A maker that reports on its process, fails, or takes signals."""

    def __call__(self, plan: Plan) -> Batch:
        if plan.number == 1:
            raise ValueError("speech/1.opus: no samples")
        if plan.number == 2:
            for sent in (signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), sent)
        return Batch(*(torch.tensor([os.getpid(), torch.get_num_threads()]) for _ in range(6)), seconds=1.0)


def test_an_error_in_the_worker_is_raised_in_the_loop_and_names_the_file(corpus: Corpus) -> None:
    batches = prefetched([Plan(0, 0, 0, ()), Plan(1, 0, 1, ())], Probe(), depth=2)
    _, probe = next(batches)
    assert probe.tokens[0] != os.getpid()
    assert probe.tokens[1] == 1
    with pytest.raises(ValueError, match=r"speech/1\.opus: no samples"):
        next(batches)


def test_a_worker_outlives_the_signals_that_ask_the_run_to_stop_and_ends_with_its_iterator() -> None:
    batches = prefetched((Plan(n, 0, 2, ()) for n in itertools.count()), Probe(), depth=1)
    workers = {int(next(batches)[1].tokens[0]) for _ in range(3)}
    assert len(workers) == 1
    batches.close()  # type: ignore[attr-defined]
    assert not {child.pid for child in multiprocessing.active_children()} & workers


LOOP = """
from tests.training.test_prefetch import Plan, Probe
from training.prefetch import prefetched
plans = (Plan(n, 0, 0, ()) for n in range(1_000_000_000))
for _, batch in prefetched(plans, Probe(), depth=2):
    print(int(batch.tokens[0]), flush=True)
"""


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_worker_ends_with_a_loop_that_is_killed() -> None:
    loop = subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert loop.stdout is not None
    worker = int(loop.stdout.readline())
    assert running(worker)
    loop.kill()
    loop.stdout.close()
    loop.wait()
    deadline = time.monotonic() + 30
    while running(worker) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not running(worker)
