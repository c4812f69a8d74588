"""A test set spread over machines by Ray (the extra `ray`).

Each task is one shard: it opens the system where it runs and sends results back as they come. Audio, and a bundle
that is not the package's own, must lie under the same paths on every machine, as on a shared file system.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

from asr_service.errors import AsrError, ConfigError, EngineFailure
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.run import Failure, Result, Spread, System, one_by_one
from asr_service.evaluation.shards import shard


def over_cluster(shards: int | None = None) -> Spread:
    """A spread over the cluster that RAY_ADDRESS names, or over this machine as a cluster of one.

    Into `shards` tasks of one processor each; by default as many as the cluster has processors.

    Raises ConfigError where Ray is not installed.
    """
    return functools.partial(_over_cluster, _ray(), shards)


def _ray() -> Any:
    # Ray reports its use to its makers unless told otherwise: what runs here is nobody's business.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A task that asks for no accelerator keeps its CUDA_VISIBLE_DEVICES; Ray warns where this is not said.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--ray needs Ray: pip install 'asr-service[ray]'") from error
    return ray


def _over_cluster(ray: Any, shards: int | None, system: System, references: Sequence[Reference]) -> Iterator[Result]:
    """A task that fails takes down no result of the others: what it had left has failed.

    Raises AsrError where a task cannot open the system.
    """
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, logging_level="warning", include_dashboard=False)
    try:
        task = ray.remote(num_cpus=1, max_retries=0, runtime_env={"env_vars": threads})(_work)
        parts = shard(references, shards or max(1, int(ray.cluster_resources().get("CPU", 1))))
        streams = {task.remote(system, part): dict.fromkeys(r.utterance_id for r in part) for part in parts}
        while streams:
            ready, _ = ray.wait(list(streams), num_returns=1)
            stream = ready[0]
            try:
                result = ray.get(next(stream))
            except StopIteration:
                streams.pop(stream)
                continue
            except ray.exceptions.RayError as error:
                yield from (Failure(name, f"its task failed: {_first_line(error)}") for name in streams.pop(stream))
                continue
            if isinstance(result, AsrError):
                raise result
            del streams[stream][result.utterance_id]
            yield result
    finally:
        if started:
            ray.shutdown()


def _work(system: System, references: Sequence[Reference]) -> Iterator[Result | AsrError]:
    """On some machine: each result as it comes; or the error that nothing could be done at all."""
    try:
        yield from one_by_one(system, references)
    except AsrError as error:
        # Not the error itself: one of a server holds its call, which cannot be sent.
        yield EngineFailure(error.message)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
