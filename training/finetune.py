"""Adapt a bundle to other speech.

    python -m training.finetune --config training/recipes/finetune.toml --bundle BUNDLE

All weights or low-rank adapters learn, old data is mixed in, and two dev sets are looked at, the target's and one of
what the base knew. The result is an ordinary bundle: the averaged weights of the look with the lowest word error rate
on the target of those that have not forgotten. Interrupted, the same command goes on; `--max-minutes` ends a part of it
with the exit status 0, before anything is exported.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from asr_service.model.bundle import load_bundle
from training.allocator import keep_freed_memory
from training.atomic import atomic_text
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.distributed import check_alone, use_device
from training.finetune_looks import evaluated
from training.finetune_run import FineTuning
from training.lora import check_out
from training.recipe import load_recipe
from training.run_options import add_run_options, add_time_option
from training.spent import commit, machine, spent, timed

RESULT_FILE = "result.json"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser("finetune", __doc__)
    parser.add_argument("--config", type=Path, required=True, help="recipe with a section [finetune]")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle directory of the base")
    parser.add_argument("--out", type=Path, help="bundle directory of the result (default: in the run's folder)")
    parser.add_argument("--name", help="of the result (default: the recipe's)")
    parser.add_argument("--lm", type=Path, help="n-gram (ARPA or KenLM trie) in the place of the bundle's")
    parser.add_argument("--result", type=Path, help="also write the comparison there, as JSON")
    add_run_options(parser)
    add_time_option(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    with told_in_one_line("finetune"):
        check_alone("fine-tuning")  # and one GPU
        return _finetune(arguments)


def _finetune(arguments: argparse.Namespace) -> int:
    until = math.inf if arguments.max_minutes is None else time.monotonic() + 60 * arguments.max_minutes
    recipe = load_recipe(arguments.config)
    folder = arguments.runs / recipe.name
    base = load_bundle(arguments.bundle)
    out = arguments.out or folder / "bundle"
    check_out(base, out)
    tuning = FineTuning(recipe, base, folder, lm=arguments.lm, device=use_device(arguments.device))
    sets = {"target": tuning.dev, "old": tuning.old_dev}
    before = {name: tuning.before(utterances) for name, utterances in sets.items()}
    for name, recognised in before.items():
        print(f"before step 0, {name:6s} dev ({len(sets[name])} utterances)  WER {recognised.shown()}", flush=True)
    with timed(folder, arguments.device):
        finished = tuning.run(save_every_s=arguments.save_minutes * 60, until=until)
    if not finished:
        late = time.monotonic() >= until
        print(f"{'the time is up' if late else 'interrupted'}; the same command goes on from here")
        return 0 if late else 130
    name = arguments.name or recipe.name
    bundle = tuning.export(out, name)
    after = {name: evaluated(bundle, utterances) for name, utterances in sets.items()}
    for name, recognised in after.items():
        print(f"step {tuning.looks.best.step}, {name:6s} dev  WER {before[name].shown()} → {recognised.shown()}")
    result = {
        "command": shlex.join(["python", "-m", "training.finetune", *sys.argv[1:]]),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(arguments.threads, arguments.device),
        "minutes": round(spent(folder).wall_s / 60, 1),
        "method": tuning.config.method,
        "best_step": tuning.looks.best.step,
        "looks": [dataclasses.asdict(look) for look in tuning.looks.looks],
        "before": {name: recognised.summary() for name, recognised in before.items()},
        "after": {name: recognised.summary() for name, recognised in after.items()},
    }
    for path in filter(None, (folder / RESULT_FILE, arguments.result)):
        with atomic_text(path) as file:
            file.write(json.dumps(result, indent=1) + "\n")
    print(f"{bundle.directory}: {bundle.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
