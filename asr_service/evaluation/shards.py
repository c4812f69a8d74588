"""A test set spread over processes. Which shard an utterance is in depends on its id alone, never on the machine, the
order or Python's seed of the day; and its words depend on its audio alone. So any number of shards gives one result.
"""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from asr_service.errors import AsrError, EngineFailure
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.run import Failure, Result, Spread, System, one_by_one


def shard_of(utterance_id: str, shards: int) -> int:
    """From 0; BLAKE2 of the id, modulo."""
    digest = hashlib.blake2b(utterance_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


def shard(references: Sequence[Reference], shards: int) -> list[list[Reference]]:
    """Each shard's references, in order; empty shards are left out."""
    parts: list[list[Reference]] = [[] for _ in range(shards)]
    for reference in references:
        parts[shard_of(reference.utterance_id, shards)].append(reference)
    return [part for part in parts if part]


def over_processes(processes: int) -> Spread:
    """A spread over this many processes, each with a recogniser of its own and one thread."""
    return functools.partial(_over_processes, processes)


def _over_processes(processes: int, system: System, references: Sequence[Reference]) -> Iterator[Result]:
    """A process that dies takes down no result of the others: what it had left has failed.

    Raises AsrError where a process cannot open the system.
    """
    context = multiprocessing.get_context("spawn")  # forked threads of torch and grpc do not work
    workers: dict[Any, BaseProcess] = {}  # by the end of the pipe that is read here
    waiting: dict[Any, dict[str, None]] = {}
    threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")  # the children's, read when they import torch
    try:
        for part in shard(references, processes):
            receiver, sender = context.Pipe(duplex=False)
            worker: BaseProcess = context.Process(target=_work, args=(system, part, sender), daemon=True)
            worker.start()
            sender.close()  # the child has its own end; without this, its death would not be seen here
            workers[receiver] = worker
            waiting[receiver] = dict.fromkeys(reference.utterance_id for reference in part)
        while workers:
            ready: list[Any] = wait(list(workers))
            for end in ready:
                try:
                    message = end.recv()
                except (EOFError, OSError):  # the latter in the middle of a result
                    ended = workers.pop(end)
                    ended.join()
                    for utterance_id in waiting.pop(end):
                        yield Failure(utterance_id, f"its process ended early, with exit code {ended.exitcode}")
                    continue
                if isinstance(message, AsrError):
                    raise message
                del waiting[end][message.utterance_id]
                yield message
    finally:
        for left in workers.values():
            left.kill()
            left.join()
        for name, value in threads.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(system: System, references: Sequence[Reference], results: Connection[Any, Any]) -> None:
    """In a child: send each result as it comes; or the error that nothing could be done at all."""
    try:
        for result in one_by_one(system, references):
            results.send(result)
    except AsrError as error:
        # Not the error itself: one of a server holds its call, which cannot be sent.
        results.send(EngineFailure(error.message))
    except BrokenPipeError:
        pass  # the parent has ended
