"""A recipe is the same run on any number of processes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import time
import warnings
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
from training.distributed import ALONE, Processes, processes, use_device
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


@contextlib.contextmanager
def one_of_two(rank: int, port: int) -> Iterator[Processes]:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    with processes("cpu") as (group, _):
        yield group


@pytest.fixture
def port() -> int:
    with socket.create_server(("localhost", 0)) as free:
        return int(free.getsockname()[1])


def wait_for_main(rank: int, port: int) -> None:
    """One of two processes whose exchanges are lost after 0.2 s; the main one prepares for longer."""
    with one_of_two(rank, port) as group:
        distributed_c10d._set_pg_timeout(timedelta(seconds=0.2))
        with group.main_first():
            if group.main:
                time.sleep(0.6)


def test_the_others_wait_for_the_main_process_longer_than_for_an_exchange(port: int) -> None:
    with ProcessPoolExecutor(2) as pool:
        for waited in [pool.submit(wait_for_main, rank, port) for rank in (0, 1)]:
            waited.result(60)


def poisoned_on_one(rank: int, port: int, folder: Path) -> tuple[int, str]:
    """One of two processes; the features of the second one's batches are not numbers."""
    torch.set_num_threads(1)
    with warnings.catch_warnings(), one_of_two(rank, port) as group:
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
        own = folder / str(rank)
        own.mkdir()
        trainer = Corpus(own).trainer("run", accumulate=2, processes=group, max_skipped=2)
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        for (planned, batch), _ in zip(trainer.batches(), range(2), strict=False):
            if rank == 1:
                batch.features[0, 0, 0] = torch.nan
            try:
                trainer.step([(planned, batch)])
            except RuntimeError as error:
                assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
                return trainer.position.skipped, str(error)
        return trainer.position.skipped, "no error"


def test_a_batch_of_one_process_that_is_not_finite_is_skipped_by_all_and_told_by_one(port: int, tmp_path: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        found = [pool.submit(poisoned_on_one, rank, port, tmp_path) for rank in (0, 1)]
        for skipped, said in [future.result(60) for future in found]:
            assert skipped == 2 and "2 updates in a row were not finite" in said
    rows = [json.loads(path.read_text()) for path in sorted((tmp_path / "0" / "run" / "skipped").iterdir())]
    assert len(rows) == 2 and not (tmp_path / "1" / "run" / "skipped").exists()


@pytest.mark.parametrize(("name", "chosen"), [("cpu", []), ("cuda", []), ("cuda:1", [torch.device("cuda:1")])])
def test_a_gpu_that_is_named_is_the_gpu_of_everything(
    monkeypatch: pytest.MonkeyPatch, name: str, chosen: list[torch.device]
) -> None:
    set_to: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", set_to.append)
    assert use_device(name) == torch.device(name)
    assert set_to == chosen


def test_batches_that_cannot_be_shared_evenly_are_refused(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match=r"optim\.accumulate is 3, must be a multiple of the 2 processes"):
        corpus.trainer("odd", accumulate=3, processes=Processes(0, 2))


def test_a_process_alone_exchanges_nothing() -> None:
    values = torch.ones(2)
    assert ALONE.sum(values) is values
    assert ALONE.gather("a") == ["a"]
    assert ALONE.totals([1.0, 2.0]) == [1.0, 2.0]
    assert ALONE.any(True)
    assert not ALONE.any(False)
    with ALONE.main_first():
        pass
