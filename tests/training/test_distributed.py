"""A recipe is the same run on any number of processes."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from tests.training.command import Command, make_speech
from tests.training.conftest import Corpus
from training.distributed import ALONE, Processes, processes
from training.metrics import read_metrics
from training.recipe import LossConfig
from training.train import main
from training.trainer import Trainer


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    speech = make_speech(tmp_path / "speech")
    monkeypatch.setenv("ASR_SPEECH_DIR", str(speech))
    return Command(speech, tmp_path)


@pytest.mark.timeout(300)  # of which ten seconds are work, on a core of its own
@pytest.mark.parametrize(("dtype", "accumulate", "steps"), [("float32", 2, 8), ("float32", 4, 4), ("bfloat16", 4, 4)])
def test_two_gloo_processes_make_the_updates_of_one(command: Command, dtype: str, accumulate: int, steps: int) -> None:
    """Same recipe, dropout and augmentation on: every draw belongs to a batch, not to a process.

    Of four batches each adds up two before the exchange, so sums are rounded in another order. Muon's products in bf16
    make more of that with every update: hence few.
    """
    more = ("--max-steps", str(steps), "--evaluate-every", str(steps // 2))
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "tests/training/two_processes.py"]
    log = command.folder / "log"
    recipe = {"accumulate": accumulate, "dtype": dtype}
    process = command.start([*two, str(command.folder), *command.arguments("two", *more, **recipe)], log=log)
    main(command.arguments("one", *more, **recipe))
    assert process.wait(100) == 0, log.read_text()
    runs = [read_metrics(command.folder / name / "tiny") for name in ("one", "two")]
    for alone, shared in zip(*runs, strict=True):
        for name in ("step", "total", "ctc", "attention", "norm", "audio_s"):
            assert alone.get(name) == pytest.approx(shared.get(name), abs=1e-4), (alone, shared)
    weights = [torch.load(command.folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
    state = torch.load(command.folder / "one" / "tiny" / f"step-{steps:07d}.pt", weights_only=True)
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), "the processes' weights drifted apart"
        torch.testing.assert_close(value, state["model"][name], rtol=0, atol=1e-4)
    assert log.read_text().count("resumed at") == 0
    assert log.read_text().count("M parameters") == 1


@pytest.fixture
def _group_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def small_loss(corpus: Corpus, group: Processes) -> Trainer:
    """In bf16, of a loss so small that most of its gradient is nothing in fp16."""
    known = corpus.trainer("small", dropout=0.0, accumulate=2)
    recipe = dataclasses.replace(known.recipe, dtype="bfloat16", loss=LossConfig(ctc=1e-7, attention=1e-7))
    given = (recipe, known.model, known.front_end, known.store, known.examples, known.folder)
    return Trainer(*given, device=known.device, processes=group)


@pytest.mark.usefixtures("_group_of_one")
@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view")
def test_small_gradients_survive_their_exchange(corpus: Corpus) -> None:
    gradients = []
    for group in (ALONE, Processes(0, 2)):
        trainer = small_loss(corpus, group)
        trainer.gradients([next(trainer.batches())])
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()]))
    alone, shared = gradients
    assert float((shared / 2 - alone).norm() / alone.norm()) < 2**-8


@pytest.mark.usefixtures("_group_of_one")
@pytest.mark.parametrize(("backend", "hooks"), [("gloo", []), ("nccl", [bf16_compress_hook])])
def test_gradients_of_bf16_are_exchanged_in_bf16_where_that_can_be(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, backend: str, hooks: list[object]
) -> None:
    registered: list[object] = []
    monkeypatch.setattr(dist, "get_backend", lambda *_: backend)
    monkeypatch.setattr(DistributedDataParallel, "register_comm_hook", lambda _, state, hook: registered.append(hook))
    small_loss(corpus, Processes(0, 2))
    assert registered == hooks


def wait_for_main(rank: int, port: int) -> None:
    """One of two processes whose exchanges are lost after 0.2 s; the main one prepares for longer."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    with processes("cpu") as (group, _):
        distributed_c10d._set_pg_timeout(timedelta(seconds=0.2))
        with group.main_first():
            if group.main:
                time.sleep(0.6)


def test_the_others_wait_for_the_main_process_longer_than_for_an_exchange() -> None:
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    with ProcessPoolExecutor(2) as pool:
        for waited in [pool.submit(wait_for_main, rank, port) for rank in (0, 1)]:
            waited.result(60)


def test_batches_that_cannot_be_shared_evenly_are_refused(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match=r"optim\.accumulate is 3, must be a multiple of the 2 processes"):
        corpus.trainer("odd", accumulate=3, processes=Processes(0, 2))


def test_a_process_alone_exchanges_nothing() -> None:
    values = torch.ones(2)
    assert ALONE.sum(values) is values
    assert ALONE.gather("a") == ["a"]
    assert ALONE.any(True, torch.device("cpu"))
    assert not ALONE.any(False, torch.device("cpu"))
    with ALONE.main_first():
        pass
