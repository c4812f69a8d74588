"""The training loop: steps, moving average of the weights, checkpoints, a look at dev."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from asr_service.features import LogMel
from asr_service.model.encoder import ChunkMask
from asr_service.model.transformer import Transformer
from training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from training.data import PcmStore, epoch_batches
from training.dataset import Example, make_batch
from training.loss import Batch, losses
from training.optim import learning_rate_factor, make_optimizers
from training.recipe import Recipe


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Inside, SIGTERM and SIGINT land in the list instead of ending the process: finish the step, save, and go."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda sent, _frame: received.append(sent))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class Position:
    """Where in the data a run is: the next batch is number `batch` of epoch `epoch`."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    audio_s: float = 0.0


class Trainer:
    """One run. Everything random is a function of (seed, epoch, batch), so a resumed run repeats what it would see."""

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
    ) -> None:
        self.recipe, self.model, self.front_end = recipe, model.to(device), front_end
        self.store, self.examples, self.folder, self.device = store, examples, folder, device
        self.optimizers = make_optimizers(model, recipe.optim)
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.position = Position()
        self.skipped_steps = 0

    def resume(self) -> bool:
        """Go on from the newest checkpoint in the run's folder, if there is one."""
        path = latest_checkpoint(self.folder)
        if path is None:
            return False
        state = load_checkpoint(path)
        self.model.load_state_dict(state["model"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.position = Position(**state["position"])
        return True

    def save(self) -> Path:
        state: dict[str, Any] = {
            "step": self.position.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "position": {name: getattr(self.position, name) for name in ("step", "epoch", "batch", "audio_s")},
            "cmvn": {"mean": self.front_end.mean, "std": self.front_end.std},
            "model_config": self.recipe.model.to_dict(),
        }
        return save_checkpoint(self.folder, state)

    def batches(self) -> Iterator[Batch]:
        """Batches from the current position on, for ever; moves the position past each one it gives."""
        data, augment = self.recipe.data, self.recipe.augment
        durations = [example.duration_s for example in self.examples]
        while True:
            epoch = self.position.epoch
            order = epoch_batches(
                durations,
                range(len(self.examples)),
                batch_s=data.batch_s,
                seed=self.recipe.seed,
                epoch=epoch,
                shortest_first=epoch < data.short_first_epochs,
            )
            for number, indices in enumerate(order):
                if number < self.position.batch:
                    continue
                self.position.batch = number + 1
                yield make_batch(
                    [self.examples[i] for i in indices],
                    self.store,
                    self.front_end,
                    augment=augment if self.position.step >= augment.start_step else None,
                    seed=f"{self.recipe.seed}/{epoch}/{number}",
                )
            self.position.epoch, self.position.batch = epoch + 1, 0

    def chunk_mask(self) -> ChunkMask | None:
        """The attention mask of this step: full context, or chunks of a random size."""
        augment, step = self.recipe.augment, self.position.step
        rng = random.Random(f"{self.recipe.seed}/chunk/{step}")
        if step < augment.chunk_start_step or rng.random() >= augment.chunk_probability:
            return None
        return ChunkMask(rng.choice(augment.chunks), augment.left)

    def step(self, batch: Batch) -> dict[str, float]:
        """One update. A step whose loss or gradient is not finite changes nothing and is counted."""
        optim = self.recipe.optim
        factor = learning_rate_factor(self.position.step, optim)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = optim.lr * factor
        torch.manual_seed(hash((self.recipe.seed, self.position.step)) & 0xFFFFFFFF)
        bf16 = self.recipe.dtype == "bfloat16"
        cast = torch.autocast(self.device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
        with cast:
            parts = losses(self.model, batch.to(self.device), self.recipe.loss, self.chunk_mask())
        parts["total"].backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), optim.clip_norm)
        if torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
            self._update_average()
        else:
            self.skipped_steps += 1
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.position.step += 1
        self.position.audio_s += batch.seconds
        return {"norm": float(norm), **{name: float(part.detach()) for name, part in parts.items()}}

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential moving average; early on over the steps there were, so that the start is forgotten."""
        decay = min(self.recipe.optim.ema_decay, (1 + self.position.step) / (10 + self.position.step))
        averages: list[Tensor] = list(self.average.values())
        torch._foreach_lerp_(averages, list(self.model.state_dict().values()), 1.0 - decay)

    def run(self, *, dev: Sequence[Batch], evaluate_every: int, save_every_s: float) -> None:
        """Train to `max_steps`; prints losses with seconds of audio per second, and dev losses as it goes."""
        steps = self.recipe.optim.max_steps
        saved = time.monotonic()
        batches = self.batches()
        running: dict[str, float] = {}
        bar = tqdm(total=steps, initial=self.position.step, unit="step", mininterval=5, dynamic_ncols=True)
        with bar, stop_signals() as stopping:
            begun, audio_s = time.monotonic(), self.position.audio_s
            self.model.train()
            while self.position.step < steps:
                parts = self.step(next(batches))
                for name, value in parts.items():
                    running[name] = 0.95 * running.get(name, value) + 0.05 * value
                speed = (self.position.audio_s - audio_s) / (time.monotonic() - begun)
                shown = " ".join(f"{name}={value:.2f}" for name, value in running.items())
                bar.set_postfix_str(f"epoch {self.position.epoch} {speed:.0f} s/s {shown}", refresh=False)
                bar.update()
                if self.position.step % 100 == 0:
                    tqdm.write(f"step {self.position.step} epoch {self.position.epoch} {speed:.0f} s/s {shown}")
                if stopping or time.monotonic() - saved > save_every_s or self.position.step == steps:
                    self.save()
                    saved = time.monotonic()
                if stopping:
                    return
                if dev and self.position.step % evaluate_every == 0:
                    tqdm.write(f"step {self.position.step} dev: {self.evaluate(dev)}")

    @torch.no_grad()
    def evaluate(self, dev: Sequence[Batch]) -> str:
        """Dev losses of the averaged weights, full context."""
        trained = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        sums: dict[str, float] = {}
        for batch in dev:
            for name, value in losses(self.model, batch.to(self.device), self.recipe.loss, None).items():
                sums[name] = sums.get(name, 0.0) + float(value)
        self.model.load_state_dict(trained)
        self.model.train()
        return " ".join(f"{name}={value / len(dev):.3f}" for name, value in sums.items())
