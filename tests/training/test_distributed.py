"""A recipe is the same run on any number of processes."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.distributed import distributed_c10d

from tests.training.command import Command, make_speech
from tests.training.conftest import Corpus
from training.distributed import ALONE, Processes, processes
from training.metrics import read_metrics
from training.train import main


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    speech = make_speech(tmp_path / "speech")
    monkeypatch.setenv("ASR_SPEECH_DIR", str(speech))
    return Command(speech, tmp_path)


@pytest.mark.timeout(300)  # of which ten seconds are work, on a core of its own
def test_two_gloo_processes_make_the_updates_of_one(command: Command) -> None:
    """Same recipe, dropout and augmentation on: every draw belongs to a batch, not to a process."""
    more = ("--max-steps", "8", "--evaluate-every", "4")
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "tests/training/two_processes.py"]
    log = command.folder / "log"
    arguments = [str(command.folder), *command.arguments("two", *more, accumulate=2)]
    process = command.start([*two, *arguments], log=log)
    main(command.arguments("one", *more, accumulate=2))
    assert process.wait(100) == 0, log.read_text()
    runs = [read_metrics(command.folder / name / "tiny") for name in ("one", "two")]
    for alone, shared in zip(*runs, strict=True):
        for name in ("step", "total", "ctc", "attention", "norm", "audio_s"):
            assert alone.get(name) == pytest.approx(shared.get(name), abs=1e-4), (alone, shared)
    weights = [torch.load(command.folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
    state = torch.load(command.folder / "one" / "tiny" / "step-0000008.pt", weights_only=True)
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), "the processes' weights drifted apart"
        torch.testing.assert_close(value, state["model"][name], rtol=0, atol=1e-4)
    assert log.read_text().count("resumed at") == 0
    assert log.read_text().count("M parameters") == 1


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
