"""`asr eval --jobs` and `--ray`: however the work is spread, one result."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from asr_service.commands import evaluate
from asr_service.evaluation.in_process import BundleSystem
from asr_service.evaluation.run import Recogniser
from asr_service.types import Mode
from tests.commands.evaluations import Run, without_times

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # each process imports torch


@pytest.mark.parametrize("spread", [["--jobs", "2"], ["--ray"], ["--ray", "--jobs", "3"]], ids=" ".join)
def test_however_the_work_is_spread_the_score_is_the_same_to_the_last_digit(
    asr: Run, test_set: Path, bundle_dir: Path, tmp_path: Path, spread: list[str]
) -> None:
    if "--ray" in spread:
        pytest.importorskip("ray")
    alone, shared = tmp_path / "alone.json", tmp_path / "shared.json"
    command = ["eval", test_set, "--mode", "streaming", "--model", bundle_dir, "--json"]
    assert asr(*command, alone) == 0
    assert asr(*command, shared, *spread) == 0
    assert without_times(alone) == without_times(shared)


@dataclass(frozen=True)
class LeavesItsNode:
    """A bundle as the system, which leaves a file of its node's name wherever it is opened."""

    bundle: BundleSystem
    folder: Path

    @contextlib.contextmanager
    def open(self) -> Iterator[Recogniser]:
        import ray

        (self.folder / ray.get_runtime_context().get_node_id()).touch()
        with self.bundle.open() as recogniser:
            yield recogniser

    def identity(self) -> Mapping[str, str]:
        return self.bundle.identity()

    def vocabulary(self) -> Container[str] | None:
        return self.bundle.vocabulary()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """A cluster of two nodes with one processor each, which RAY_ADDRESS names; the nodes' names."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    try:
        other = cluster.add_node(**small)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield {cluster.head_node.node_id, other.node_id}
    finally:
        cluster.shutdown()


def test_shards_go_to_every_node_of_a_cluster_and_the_score_is_the_same_to_the_last_digit(
    asr: Run, test_set: Path, bundle_dir: Path, tmp_path: Path, nodes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, shared, opened = tmp_path / "alone.json", tmp_path / "shared.json", tmp_path / "opened"
    opened.mkdir()
    command = ["eval", test_set, "--mode", "streaming", "--model", bundle_dir, "--json"]
    assert asr(*command, alone) == 0
    system = LeavesItsNode(BundleSystem(Mode.STREAMING, bundle_dir), opened)
    monkeypatch.setattr(evaluate, "_system", lambda _: system)
    assert asr(*command, shared, "--ray") == 0
    assert {file.name for file in opened.iterdir()} == nodes and len(nodes) == 2
    assert without_times(alone) == without_times(shared)
