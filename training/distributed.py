"""Several processes of one run, as `torchrun` starts them; a process alone is the case of one.

The loop shares out an update's batches, so a recipe is the same run on any number of processes: only its speed differs.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

# How long the others wait for what the main process prepares: decoding a thousand hours of speech takes longer than the
# minutes after which an exchange between GPUs counts as lost.
PREPARATION = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's place, and the few exchanges that training needs.

    Attributes:
        rank, world: this process's number and how many there are.
        preparing: the group in which they wait for the main process, of `PREPARATION`; None: the default group.
        host: the group for what is no tensor of a GPU, likewise.
    """

    rank: int = 0
    world: int = 1
    preparing: dist.ProcessGroup | None = None
    host: dist.ProcessGroup | None = None

    @property
    def main(self) -> bool:
        """Whether this one writes: checkpoints, logs, the bar."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, in place, the same to the last bit on each."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def rows(self, own: Tensor) -> Tensor:
        """(N, …) of each → (world · N, …), in order of rank."""
        if self.world == 1:
            return own
        everybody = own.new_empty(self.world * len(own), *own.shape[1:])
        # As bytes: gloo has no bfloat16, and nccl no 16-bit integers.
        shares = list(everybody.view(torch.uint8).chunk(self.world))
        dist.all_gather(shares, own.contiguous().view(torch.uint8))
        return everybody

    def totals(self, numbers: Sequence[float]) -> list[float]:
        """Each number's sum over the processes. They go from host to host: no GPU is waited for."""
        if self.world == 1:
            return [*numbers]
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(values, group=self.host)
        return [float(value) for value in values]

    def any(self, here: bool) -> bool:
        """Whether it holds on one of them: what they must do together (stop) they decide together."""
        return self.totals([float(here)])[0] > 0

    def gather(self, value: T) -> list[T]:
        """Everybody's value, in order of rank."""
        if self.world == 1:
            return [value]
        values: list[T | None] = [None] * self.world
        dist.all_gather_object(values, value, group=self.host)
        return values  # type: ignore[return-value]

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block before the others, which then find on disk what it made."""
        if not self.main:
            dist.barrier(self.preparing)
        yield
        if self.main and self.world > 1:
            dist.barrier(self.preparing)


ALONE = Processes()


def check_alone(what: str) -> None:
    """Raises ValueError under torchrun with several processes, for what each of them would do in one folder."""
    if (world := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise ValueError(f"WORLD_SIZE is {world}, but {what} is for one process: start it without torchrun")


def use_device(device: str) -> torch.device:
    """The device by its name, which from now on is "the GPU" of events, streams and memory, too."""
    place = torch.device(device)
    if place.type == "cuda" and place.index is not None:
        torch.cuda.set_device(place)
    return place


@contextlib.contextmanager
def processes(device: str) -> Iterator[tuple[Processes, torch.device]]:
    """Join the group that torchrun's environment describes (nccl on GPUs, gloo on CPU), and leave it in the end.

    `device` is `cpu` or `cuda`, for a process alone also `cuda:1`; gives the device of this process.
    """
    # Of the depthwise filters: their gradients differ from their weights only in the strides of dimensions of size 1.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE, use_device(device)
        return
    place = use_device("cpu" if device == "cpu" else f"cuda:{os.environ['LOCAL_RANK']}")
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        preparing = dist.new_group(backend="gloo", timeout=PREPARATION)
        host = dist.new_group(backend="gloo")
        yield Processes(dist.get_rank(), world, preparing, host), place
    finally:
        dist.destroy_process_group()
