"""Speed of training: our step against the loop one would write first, on the same batches, in turns.

    python -m benchmarks.training_speed --threads 2 --out training_speed.json
    torchrun --nproc-per-node 2 -m benchmarks.training_speed --threads 2 --out training_speed.json

With torchrun ours runs in so many processes that share the threads and the rows of every batch out; the plain loop has
all to itself while the others wait. Both train the same model (the shipped preset, same losses) on the same batches of
160 padded seconds, an update each.
- ours: `training.trainer.Trainer.step`: bf16 autocast with the residual stream in bf16 (`--dtype auto`, the default:
  where the CPU is faster in it, else fp32), attention as matrix products, dropout masks shared over time, a
  compiled CTC loss, Muon and AdamW (or AdamW for all), gradient clipping, moving average of the weights.
- plain: fp32, `torch.nn.functional.scaled_dot_product_attention` and `ctc_loss`, `torch.nn.Dropout` (element-wise), the
  stem's and the depthwise convolutions by `conv2d` and `conv1d` as they are, rotary positions half by half, clipping,
  AdamW, or with `torch.optim.Muon` for the matrices that ours gives to Muon (where the CPU is faster in bf16:
  torch's Muon computes in no other type); no average. All else is shared.

Steps run in blocks, ours, plain, ours, plain, …, so that a change of the machine's pace meets all; a ratio is that of
the medians. Nothing else may run beside it. Inputs are noise of speech's lengths, for no value changes the time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import soundfile
import torch
from torch import Tensor

from asr_service.evaluation.provenance import machine
from asr_service.features import LogMel
from asr_service.model.config import preset
from asr_service.model.transformer import Transformer
from benchmarks.plain_loop import PlainLoop
from training.allocator import keep_freed_memory
from training.compiled import compile_blocks
from training.data import PcmStore, Utterance
from training.distributed import Processes, processes
from training.loss import Batch
from training.precision import DtypeName, compute_dtype
from training.recipe import OptimConfig, Recipe
from training.sampler import PlannedBatch
from training.trainer import Loaded, Trainer

BATCH_S, TOKENS_PER_S, PHONES_PER_S = 160.0, 4.0, 9.0
Optimizer = Literal["adamw", "muon"]
OURS = "ours"
OURS_ADAMW = "ours, AdamW"
PLAIN: dict[str, Optimizer] = {"plain": "adamw", "plain, Muon": "muon"}
# Which of ours is set against which: the loop that trains the shipped model against both, and each against its like.
AGAINST = ((OURS, "plain"), (OURS, "plain, Muon"), (OURS_ADAMW, "plain"))


def make_batch(longest_s: float, generator: torch.Generator) -> Batch:
    """Utterances of 85 to 100 % of `longest_s`, as many as `BATCH_S` padded seconds hold."""
    rows = int(BATCH_S / longest_s)
    seconds = longest_s * (0.85 + 0.15 * torch.rand(rows, generator=generator))
    seconds[0] = longest_s
    config = preset("streaming-s")
    tokens, phones = (seconds * TOKENS_PER_S).long(), (seconds * PHONES_PER_S).long()
    return Batch(
        features=torch.randn(rows, int(longest_s * 100), config.n_mels, generator=generator),
        lengths=(seconds * 100).long(),
        tokens=torch.randint(3, config.vocab_size, (rows, int(tokens.max())), generator=generator),
        token_lengths=tokens,
        phones=torch.randint(1, config.phone_vocab_size, (rows, int(phones.max())), generator=generator),
        phone_lengths=phones,
        seconds=float(seconds.sum()),
    )


def share_of(batch: Batch, group: Processes) -> Batch:
    """This process's rows, taken in turns, so that the shares are alike."""
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    rows = {
        name: value[group.rank :: group.world].clone() for name, value in fields.items() if isinstance(value, Tensor)
    }
    return Batch(**fields | rows | {"seconds": float(rows["lengths"].sum()) / 100})


def our_trainer(
    folder: Path, group: Processes, dtype: DtypeName, *, optimizer: Optimizer = "muon", compiled: bool = False
) -> Trainer:
    """The trainer of the shipped preset; its corpus is one second of silence, for the batches come from here."""
    soundfile.write(folder / "silence.wav", np.zeros(16_000, np.float32), 16_000)
    store = PcmStore.build([Utterance(folder / "silence.wav", 1.0, "a", "", "")], folder / "store", workers=1)
    optim = OptimConfig(warmup_steps=100, lr=1e-4, accumulate=group.world, optimizer=optimizer)
    recipe, device = Recipe("speed", dtype=dtype, model=preset("streaming-s"), optim=optim), torch.device("cpu")
    trainer = Trainer(recipe, Transformer(recipe.model), LogMel(), store, [], folder, device=device, processes=group)
    trainer.model.train()
    if compiled:
        compile_blocks(trainer.model)
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="blocks of each")
    parser.add_argument("--steps", type=int, default=8, help="timed steps a block")
    parser.add_argument("--dtype", choices=get_args(DtypeName), default="auto", help="of our matrix products")
    parser.add_argument("--compile", action="store_true", help="ours with torch.compile of the encoder's blocks too")
    parser.add_argument("--out", type=Path, help="JSON, every step's speed in it too")
    arguments = parser.parse_args()
    keep_freed_memory()
    with processes("cpu") as (group, _):
        speeds = measure(arguments, group)
    if group.main:
        report(arguments, group, speeds)


def measure(arguments: argparse.Namespace, group: Processes) -> dict[str, list[float]]:
    """Seconds of audio per second of every step, of all processes together."""
    generator = torch.manual_seed(0)
    batches = [make_batch(longest, generator) for longest in (4.0, 8.0, 12.0, 13.5, 14.5, 15.5, 16.0, 16.5)]
    planned = PlannedBatch(0, 0, 0, 0, (), after=(0, 0))
    updates: list[list[Loaded]] = [[(planned, share_of(batch, group))] for batch in batches]
    with tempfile.TemporaryDirectory() as folder:
        systems: dict[str, Trainer | PlainLoop] = {
            OURS: our_trainer(Path(folder), group, arguments.dtype),
            OURS_ADAMW: our_trainer(Path(folder), group, arguments.dtype, optimizer="adamw"),
        }
        if arguments.compile:
            systems[f"{OURS}, compiled"] = our_trainer(Path(folder), group, arguments.dtype, compiled=True)
        for name, optimizer in PLAIN.items():
            if optimizer == "adamw" or compute_dtype("auto", torch.device("cpu")) == torch.bfloat16:
                systems[name] = PlainLoop(optimizer)
        speeds: dict[str, list[float]] = {name: [] for name in systems}
        for number in range(arguments.rounds):
            for name, system in systems.items():
                ours = isinstance(system, Trainer)
                torch.set_num_threads(arguments.threads // group.world if ours else arguments.threads)
                first = len(batches) if number == 0 else 1  # untimed: kernels are made, memory is got
                order = [*range(first), *(i % len(batches) for i in range(arguments.steps))]
                seconds = []
                for index in order:
                    begun = time.perf_counter()
                    if isinstance(system, Trainer):
                        system.step(updates[index])
                    elif group.main:
                        system.step(batches[index])
                    seconds.append(time.perf_counter() - begun)
                timed = list(zip(order, seconds, strict=True))[first:]
                speeds[name] += [batches[index].seconds / taken for index, taken in timed]
                group.any(False)  # the others wait here
                if group.main:
                    median = statistics.median(speeds[name][-arguments.steps :])
                    print(f"{name}: {median:.1f} s of audio a second", flush=True)
    return speeds


def report(arguments: argparse.Namespace, group: Processes, speeds: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    result = {
        "machine": machine(),
        "threads": arguments.threads,
        "compute dtype": str(compute_dtype(arguments.dtype, torch.device("cpu"))).removeprefix("torch."),
        "processes": group.world,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "parameters": sum(parameter.numel() for parameter in Transformer(preset("streaming-s")).parameters()),
        "audio_s_per_s": {name: round(value, 1) for name, value in medians.items()},
        "ratios": {
            f"{one} / {other}": round(medians[one] / medians[other], 2) for one, other in AGAINST if other in medians
        },
    }
    print(json.dumps(result, indent=2))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result | {"every_step": speeds}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
