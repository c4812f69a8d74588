"""The training loop: updates, moving average of the weights, checkpoints, a look at dev."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from asr_service.features import LogMel
from asr_service.model.encoder import ChunkMask
from asr_service.model.transformer import Transformer
from training.ahead import Ahead
from training.average import keep_best
from training.checkpoint import load_newest, save_checkpoint
from training.data import PcmStore
from training.dataset import BatchMaker, Example
from training.distributed import ALONE, Processes
from training.flops import training_flops
from training.loss import Batch, Objective, losses, target_counts
from training.mmi import phone_trigram
from training.optim import learning_rate_factor, make_optimizers
from training.precision import compute_dtype
from training.prefetch import prefetched
from training.progress import Progress
from training.recipe import Recipe
from training.same_run import check_same, identity
from training.sampler import PlannedBatch, Position, plan
from training.skipped import dump
from training.stop_signals import stop_signals
from training.worst import peak_memory_gb, worst_batches

Loaded = tuple[PlannedBatch, Batch]


@dataclass(frozen=True, slots=True)
class _Maker:
    """A planned batch to the batch; picklable, for the process that makes them ahead."""

    maker: BatchMaker
    seed: int
    start_step: int

    def __call__(self, planned: PlannedBatch) -> Batch:
        seed = f"{self.seed}/{planned.epoch}/{planned.number}"
        return self.maker(planned.indices, seed, augmented=planned.step >= self.start_step)

    def largest(self, indices: Sequence[int]) -> Batch:
        """The most that augmentation makes of a batch's utterances, where one is as long as joined ones become."""
        drawn = self.maker.augment
        self.maker.augment = dataclasses.replace(
            drawn, speeds=(min(drawn.speeds),), join_probability=0.0, pad_probability=0.0
        )
        try:
            return self.maker(indices)
        finally:
            self.maker.augment = drawn


class Trainer:
    """One run.

    No generator's state outlives an update: everything random is a function of the recipe's seed and the batch's place,
    so a resumed run repeats what it would have drawn, and so does a run on another number of processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Transformer,
        front_end: LogMel,
        store: PcmStore,
        examples: Sequence[Example],
        folder: Path,
        *,
        device: torch.device,
        processes: Processes = ALONE,
    ) -> None:
        """Raises ValueError when the recipe's batches an update cannot be shared out evenly, or it weighs phones that
        its model does not have.
        """
        if recipe.optim.accumulate % processes.world:
            raise ValueError(
                f"optim.accumulate is {recipe.optim.accumulate}, must be a multiple of the {processes.world} processes"
            )
        self.compute_dtype = compute_dtype(recipe.dtype, device)
        # A checkpoint keeps the type that it was: a run that goes on on another machine says that it has changed.
        recipe = dataclasses.replace(recipe, dtype="bfloat16" if self.compute_dtype == torch.bfloat16 else "float32")
        self.recipe, self.model, self.front_end = recipe, model.to(device), front_end
        self.store, self.examples, self.folder, self.device = store, examples, folder, device
        self.processes = processes
        self._maker: _Maker | None = None
        self.optimizers = make_optimizers(model, recipe.optim, processes)
        weights = model.state_dict()
        self._weights = list(weights.values())  # not asked for again: that takes milliseconds, in every update
        self.average = {name: value.detach().clone() for name, value in weights.items()}
        self.position = Position()
        self.skipped_in_a_row = 0
        self.trigram: Tensor | None = None
        if recipe.loss.phone_mmi:
            if not recipe.model.phone_vocab_size:
                raise ValueError(f"loss.phone_mmi is {recipe.loss.phone_mmi}, but the model has no phones")
            phones = (example.phones for example in examples)
            self.trigram = phone_trigram(phones, recipe.model.phone_vocab_size).to(device)
        self.objective: nn.Module = Objective(model, recipe.loss, self.trigram)
        if processes.world > 1:
            self.objective = DistributedDataParallel(self.objective, gradient_as_bucket_view=True)
            if self.compute_dtype == torch.bfloat16 and dist.get_backend() == "nccl":  # DDP has the hook for no other
                # Half the bytes. In fp16 most of a gradient, divided by the processes, would be below what is normal.
                self.objective.register_comm_hook(None, bf16_compress_hook)

    def resume(self) -> bool:
        """Go on from the newest checkpoint in the run's folder that can be read, if there is one; prints what it does.

        Raises ValueError when that is of another run than this.
        """
        state = load_newest(self.folder)
        if state is None:
            return False
        changed = check_same(self.folder, state.get("run"), self._identity)
        self.model.load_state_dict(state["model"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.position = Position(**state["position"])
        self.front_end.mean, self.front_end.std = state["cmvn"]["mean"], state["cmvn"]["std"]
        self._maker = None
        if self.processes.main:
            print(f"resumed at {self.position}", *changed, sep="\n  ")
        return True

    def save(self) -> Path:
        """Write a checkpoint of the run as it stands; the main process alone does."""
        state = self._averaged() | {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "position": dataclasses.asdict(self.position),
        }
        return save_checkpoint(self.folder, state)

    @functools.cached_property
    def _identity(self) -> dict[str, Any]:
        """Made once: of a thousand hours of speech it takes seconds."""
        return identity(self.recipe, self.examples)

    def _averaged(self) -> dict[str, Any]:
        """What an export needs."""
        return {
            "run": self._identity,
            "step": self.position.step,
            "average": self.average,
            "cmvn": {"mean": self.front_end.mean, "std": self.front_end.std},
            "model_config": self.recipe.model.to_dict(),
        }

    @property
    def maker(self) -> _Maker:
        """Makes a planned batch: on this device, or for a process that works ahead on the CPU.

        Made when first needed, for it copies the front end with the statistics that `resume` may have read.
        """
        if self._maker is None:
            recipe = self.recipe
            maker = BatchMaker(self.examples, self.store, self.front_end, recipe.augment, self.device)
            self._maker = _Maker(maker, recipe.seed, recipe.augment.start_step)
        return self._maker

    def batches(self) -> Iterator[Loaded]:
        """This process's batches from the current position on, for ever."""
        rank, world = self.processes.rank, self.processes.world
        batches = plan([example.duration_s for example in self.examples], self.recipe, self.position)
        own = (planned for planned in batches if planned.slot % world == rank)
        # A GPU makes them itself, where the samples lie: no process could hand them over as fast.
        depth = self.recipe.data.prefetch if self.device.type == "cpu" else 0
        yield from prefetched(own, self.maker, depth=depth)

    def updates(self) -> Iterator[list[Loaded]]:
        """The same, in groups: this process's share of each update."""
        share = self.recipe.optim.accumulate // self.processes.world
        with contextlib.closing(self.batches()) as batches:  # type: ignore[type-var]
            while True:
                yield [next(batches) for _ in range(share)]

    def chunk_mask(self) -> ChunkMask | None:
        """The attention mask of this step: full context, or chunks of a random size."""
        augment, step = self.recipe.augment, self.position.step
        rng = random.Random(f"{self.recipe.seed}/chunk/{step}")
        if step < augment.chunk_start_step or rng.random() >= augment.chunk_probability:
            return None
        return ChunkMask(rng.choice(augment.chunks), augment.left)

    def gradients(self, update: Sequence[Loaded]) -> tuple[list[Tensor], list[str]]:
        """Add the gradient of this process's share to the parameters, that of all processes when there are several.

        Returns each batch's losses, (parts,) a batch, as shares of the update's losses per token, and their names.
        """
        world = self.processes.world
        counts = self._counts([batch for _, batch in update])
        chunk = self.chunk_mask()
        values, names = [], [""]
        for number, (planned, batch) in enumerate(update, 1):
            torch.manual_seed(hash((self.recipe.seed, planned.step, planned.slot)) & 0xFFFFFFFF)
            with contextlib.ExitStack() as stack:
                if isinstance(self.objective, DistributedDataParallel) and number < len(update):
                    stack.enter_context(self.objective.no_sync())
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.compute_dtype == torch.bfloat16):
                    parts = self.objective(batch.to(self.device), chunk, counts)
                (parts["total"] * world).backward()  # the mean over processes of this is the sum of their shares
            names = list(parts)
            values.append(torch.stack([part.detach() for part in parts.values()]).double())
        return values, names

    def _counts(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Target tokens of the whole update, over all processes."""
        own = [target_counts(batch) for batch in batches]
        sums = {name: float(sum(counts[name] for counts in own)) for name in own[0]}
        return dict(zip(sums, self.processes.totals([*sums.values()]), strict=True))

    def step(self, update: Sequence[Loaded], meanwhile: Callable[[], None] | None = None) -> dict[str, float]:
        """One update; one whose loss or gradient is not finite changes no weight, is counted and dumped.

        `meanwhile` is called where a GPU has the most left to do: between asking for the gradient and reading anything.
        Raises RuntimeError after `max_skipped` such updates in a row.
        """
        optim = self.recipe.optim
        lr = optim.lr * learning_rate_factor(self.position.step, optim)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        values, names = self.gradients(update)
        # A norm that is not finite turns all gradients into NaN here: the update must not be made then.
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), optim.clip_norm)
        finite = torch.isfinite(norm) & torch.isfinite(torch.stack(values)).all()
        totals = torch.stack(values).sum(dim=0)
        own = totals.new_full((1,), sum(batch.seconds for _, batch in update))
        shared = self.processes.sum(torch.cat([totals, own, (~finite).double().view(1)]))
        figures = torch.cat([shared, norm.double().view(1)])
        if meanwhile is not None:
            meanwhile()
        *parts, seconds, broken, norm_value = figures.tolist()  # all that is read of a GPU here, at once
        if broken:
            self._skip(update, values, names)
        else:
            self.skipped_in_a_row = 0
            for optimizer in self.optimizers:
                optimizer.step()
            self._update_average()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.position.step += 1
        self.position.audio_s += seconds
        self.position.epoch, self.position.batch = update[-1][0].after
        return {**dict(zip(names, parts, strict=True)), "norm": norm_value, "lr": lr, "audio_s": seconds}

    def _skip(self, update: Sequence[Loaded], values: Sequence[Tensor], names: Sequence[str]) -> None:
        self.position.skipped += 1
        self.skipped_in_a_row += 1
        rows = [
            {
                "epoch": planned.epoch,
                "batch": planned.number,
                "losses": dict(zip(names, map(str, losses.tolist()), strict=True)),
                "utterances": [
                    {
                        "index": self.examples[i].index,
                        "path": self.store.sources[self.examples[i].index],
                        "duration_s": self.examples[i].duration_s,
                    }
                    for i in planned.indices
                ],
            }
            for (planned, _), losses in zip(update, values, strict=True)
        ]
        gathered = [row for rows in self.processes.gather(rows) for row in rows]
        if self.processes.main:
            dump(self.folder, self.position.step, gathered)
        if self.skipped_in_a_row >= self.recipe.optim.max_skipped:
            raise RuntimeError(
                f"{self.skipped_in_a_row} updates in a row were not finite (optim.max_skipped), the last one step "
                f"{self.position.step}; their batches are listed in {self.folder / 'skipped'}"
            )

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential moving average; early on over the steps there were, so that the start is forgotten."""
        decay = min(self.recipe.optim.ema_decay, (1 + self.position.step) / (10 + self.position.step))
        averages: list[Tensor] = list(self.average.values())
        torch._foreach_lerp_(averages, self._weights, 1.0 - decay)

    def run(
        self,
        *,
        dev: Sequence[Batch],
        evaluate_every: int,
        save_every_s: float,
        max_minutes: float | None = None,
        until: int | None = None,
    ) -> None:
        """Train to `max_steps`, or until a signal or `max_minutes` from now; leaves a checkpoint in either case.

        `until`: stop so after this many updates, of a run that goes on with another call.
        """
        steps, processes = self.recipe.optim.max_steps, self.processes
        last = steps if until is None else min(until, steps)
        begun = saved = time.monotonic()
        deadline = None if max_minutes is None else begun + 60 * max_minutes
        if self.position.step == 0:
            self.try_worst_batches()
        self.model.train()
        progress = Progress(self.folder, self.position, steps, self.device, self.compute_dtype, processes)
        with progress, stop_signals() as stopping, contextlib.closing(self.updates()) as made:  # type: ignore[type-var]
            updates = Ahead(made, self.device)
            while self.position.step < last:
                asked = time.monotonic()
                update = updates.take()
                values = self.step(update, updates.make if self.position.step + 1 < last else None)
                values |= {"wait_s": updates.waited_s(), "time_s": time.monotonic() - asked}
                values["tflop"] = self._flops(update) / 1e12
                progress.update(self.position, values)
                if dev and (self.position.step % evaluate_every == 0 or self.position.step == steps):
                    self._look_at(dev, progress)
                late = deadline is not None and time.monotonic() > deadline
                stop = processes.any(bool(stopping) or late)
                if processes.main and (stop or time.monotonic() - saved > save_every_s or self.position.step == last):
                    self.save()
                    saved = time.monotonic()
                if stop:
                    return

    def try_worst_batches(self) -> None:
        """Forward and backward of the epoch's largest batches, at the slowest speed and in all their views.

        No update is made, and nothing of the run changes.

        Too little memory shows here, in the first seconds.
        """
        durations = [example.duration_s for example in self.examples]
        first = itertools.takewhile(lambda planned: planned.epoch == 0, plan(durations, self.recipe, Position()))
        worst = worst_batches([planned.indices for planned in first], self.examples)
        self.model.train()
        with torch.random.fork_rng([] if self.device.type == "cpu" else [self.device]):
            for indices in dict.fromkeys(tuple(indices) for indices in worst.values()):
                self.gradients([(PlannedBatch(0, 0, 0, 0, indices, after=(0, 0)), self.maker.largest(indices))])
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        if self.processes.main:
            print(f"largest batches tried: {peak_memory_gb(self.device):.2f} GB at most")

    def _flops(self, update: Sequence[Loaded]) -> float:
        """Of the whole update: those of this process, times the processes."""
        config = self.recipe.model
        own = sum(
            training_flops(config, batch.features.shape[0], batch.features.shape[1], batch.tokens.shape[1])
            for _, batch in update
        )
        return own * self.processes.world

    def _look_at(self, dev: Sequence[Batch], progress: Progress) -> None:
        losses = self.evaluate(dev)
        progress.dev(self.position.step, losses)
        if self.processes.main:
            keep_best(self.folder, self._averaged() | {"dev": losses}, self.recipe.optim.keep_best)

    @torch.no_grad()
    def evaluate(self, dev: Sequence[Batch]) -> dict[str, float]:
        """Dev losses per token of the averaged weights, full context; the processes share the batches."""
        trained = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        counts: dict[str, float] = {}
        for batch in dev:
            for name, count in target_counts(batch).items():
                counts[name] = counts.get(name, 0.0) + count
        rank, world = self.processes.rank, self.processes.world
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(dev[rank::world] or dev[:1]):
            share = 1.0 if rank + number * world < len(dev) else 0.0  # with fewer batches than processes
            parts = losses(self.model, batch.to(self.device), self.recipe.loss, None, counts, self.trigram)
            for name, value in parts.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + share * value
        self.model.load_state_dict(trained)
        self.model.train()
        total = self.processes.sum(torch.stack([*sums.values()]).double())
        return dict(zip(sums, total.tolist(), strict=True))
