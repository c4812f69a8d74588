"""Train a recipe: `python -m training.train --config training/recipes/NAME.toml`.

Resumes from the newest checkpoint of the run's folder by itself. Decoded audio is kept beside the runs. On several
GPUs or processes: `torchrun --nproc-per-node N -m training.train --config …`, with a recipe whose `optim.accumulate` is
a multiple of N. On a machine with a time limit: `--max-minutes 9`, and the same command again. The exit status is 0 at
the end of the run and of such a part of it, 130 where a signal (SIGINT, SIGTERM) ended it before, with a checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import tomli_w
import torch

from asr_service.commands.option_types import positive
from asr_service.features import FeatureConfig, LogMel
from asr_service.lexicon import Lexicon
from asr_service.model.bundle import TOKENIZER_FILE
from asr_service.model.transformer import Transformer
from asr_service.tokenizer import WordPieces
from training.allocator import keep_freed_memory
from training.atomic import atomic_path, atomic_text
from training.checkpoint import latest_checkpoint
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.compiled import compile_blocks
from training.curves import RECIPE_FILE, draw_run
from training.data import PcmStore, Utterance
from training.dataset import cmvn, make_batch, make_examples
from training.distributed import Processes, processes
from training.example import Example, in_words
from training.initial import Initial, read_initial, take_tokenizer
from training.lexicon import LEXICON_FILE, own_lexicon
from training.loss import Batch
from training.recipe import DEV_LONGEST_S, Recipe, load_recipe
from training.recipe_table import read_table
from training.run_options import add_pace_options, add_run_options
from training.selection import dev_store as dev_store_of
from training.selection import dev_utterances as dev_utterances_of
from training.selection import training_store, training_utterances
from training.spent import timed
from training.tokenizer import check_transcripts
from training.tokenizer import train as train_tokenizer
from training.trainer import Trainer


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser("train", __doc__)
    parser.add_argument("--config", type=Path, required=True, help="recipe, a TOML file")
    add_run_options(parser)
    parser.add_argument("--init-from", type=Path, help="bundle or checkpoint whose weights the run starts from")
    parser.add_argument("--evaluate-every", type=positive, default=500, help="steps between looks at dev")
    parser.add_argument("--seed", type=int, help="instead of the recipe's; the run's folder is then NAME-seedN")
    parser.add_argument("--hold-out", action="store_true", help="train without the recipe's tuning_speakers")
    parser.add_argument("--max-steps", type=int, help="instead of the recipe's")
    parser.add_argument("--accumulate", type=int, help="batches an update, instead of the recipe's")
    parser.add_argument("--batch-seconds", type=float, help="padded seconds a batch, instead of the recipe's")
    add_pace_options(parser)
    return parser.parse_args(argv)


def read_recipe(arguments: argparse.Namespace) -> tuple[Recipe, Path]:
    """The recipe with what the command line changes, and the run's folder."""
    recipe = load_recipe(arguments.config)
    if recipe.finetune is not None:
        raise ValueError(f"{arguments.config} adapts a bundle, it does not train one: python -m training.finetune")
    if arguments.hold_out and not recipe.data.tuning_speakers:
        raise ValueError(f"{arguments.config}: --hold-out, but [data] tuning_speakers names nobody")
    changed = {section: dataclasses.replace(getattr(recipe, section), **of) for section, of in _changes(arguments)}
    recipe = dataclasses.replace(recipe, **changed)
    name = recipe.name
    if arguments.seed is not None:
        recipe = dataclasses.replace(recipe, seed=arguments.seed)
        name += f"-seed{arguments.seed}"
    return recipe, arguments.runs / (f"{name}-held-out" if arguments.hold_out else name)


def _changes(arguments: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """Sections of the recipe, and what the command line sets in them."""
    optim = {"max_steps": arguments.max_steps, "accumulate": arguments.accumulate}
    tables = [("optim", optim), ("data", {"batch_s": arguments.batch_seconds})]
    return [(section, {name: value for name, value in of.items() if value is not None}) for section, of in tables]


def recipe_table(arguments: argparse.Namespace) -> dict[str, Any]:
    """The run's recipe as one TOML table, with what the command line changes."""
    table = read_table(arguments.config)
    if arguments.seed is not None:
        table["seed"] = arguments.seed
    for section, changed in _changes(arguments):
        table[section] = {**table.get(section, {}), **changed}
    return table


def targets(
    recipe: Recipe, folder: Path, texts: Sequence[str], *, given: bool = False
) -> tuple[WordPieces, Lexicon | None]:
    """Tokenizer and lexicon of the run, made from the training texts where there are none yet.

    What a start made that came to no checkpoint is made anew when the texts are others by now. `given`: the tokenizer
    there is that of the weights which the run starts from. Raises ValueError where the tokenizer is not of transcripts
    or not as large as the recipe's model wants it, BundleError where the recipe's lexicon cannot be read.
    """
    begun = latest_checkpoint(folder) is not None
    tokenizer = folder / TOKENIZER_FILE
    _make(tokenizer, texts, lambda: train_tokenizer(texts, recipe.model.vocab_size), fixed=begun or given)
    lexicon = None
    if recipe.model.phone_vocab_size:
        own = folder / LEXICON_FILE
        if not recipe.data.lexicon:
            _make(own, texts, lambda: own_lexicon(texts), fixed=begun)
        lexicon = Lexicon.load(Path(recipe.data.lexicon) if recipe.data.lexicon else own)
    pieces = WordPieces.load(tokenizer)
    check_transcripts(pieces, tokenizer)
    if pieces.vocab_size != recipe.model.vocab_size:
        raise ValueError(
            f"[model] vocab_size is {recipe.model.vocab_size}, but {tokenizer} has {pieces.vocab_size} tokens: "
            "set it to that, or remove the file to have it learnt anew"
        )
    return pieces, lexicon


def _make(path: Path, texts: Sequence[str], maker: Callable[[], WordPieces | Lexicon], *, fixed: bool) -> None:
    """Write what `maker` makes of the texts to `path`, unless that is there already, made of them or by somebody else.

    `fixed`: unless anything is there. The digests of the texts and of what was made of them are kept beside it, and
    written first: what has none is somebody else's, and not of a start that was killed or out of room between the two.
    """
    kept = path.with_name(f"{path.name}.sha256")
    made_of = _digest("\n".join(texts).encode())
    if path.exists():
        digests = kept.read_text(errors="replace").split() if kept.exists() else []
        if fixed or len(digests) != 2:  # an empty file of a full disk tells as little as none
            return
        before, made = digests
        if before == made_of or made != _digest(path.read_bytes()):
            return
    with atomic_path(path) as draft:
        maker().save(draft)
        path.unlink(missing_ok=True)
        with atomic_text(kept) as file:
            file.write(f"{made_of} {_digest(draft.read_bytes())}\n")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tell_shared(learnt: Iterable[Utterance], dev: Sequence[Utterance]) -> None:
    """Print how much of dev lies in recordings that are trained on too: its loss is too low there."""
    heard = {os.path.normpath(utterance.path) for utterance in learnt}
    shared = sum(os.path.normpath(utterance.path) in heard for utterance in dev)
    if shared:
        print(f"warning: {shared} of {len(dev)} dev utterances are of recordings that training has as well")


def dev_batches(
    examples: Sequence[Example], store: PcmStore, front_end: LogMel, *, lead_frames: int = 0
) -> list[Batch]:
    """Some 64 utterances in batches of eight, each after the silence that training puts before its own."""
    chosen = sorted(examples[:: max(1, len(examples) // 64)], key=lambda e: e.duration_s)
    parts = [chosen[i : i + 8] for i in range(0, len(chosen), 8)]
    return [make_batch(part, store, front_end, lead_frames=lead_frames) for part in parts]


def _held_out(arguments: argparse.Namespace, recipe: Recipe, utterances: Sequence[Utterance]) -> tuple[str, ...]:
    """The speakers to train without. Raises ValueError for one who is not there: a search would be tuned on others."""
    if not arguments.hold_out:
        return ()
    there = {utterance.speaker for utterance in utterances}
    if nobody := [speaker for speaker in recipe.data.tuning_speakers if speaker not in there]:
        told = f"[data] tuning_speakers has {', '.join(nobody)}, of whom nothing is in {recipe.data.manifest}"
        raise ValueError(f"{arguments.config}: --hold-out, but {told}")
    return recipe.data.tuning_speakers


def train(
    arguments: argparse.Namespace, recipe: Recipe, folder: Path, group: Processes, device: torch.device
) -> Trainer:
    """Everything from the recipe to the pictures, as one of the group's processes."""
    begun = time.monotonic()
    initial: Initial | None = None
    if recipe.start and arguments.init_from is None and latest_checkpoint(folder) is None:
        raise ValueError(
            f"{recipe.name} goes on from {recipe.start.recipe}: name its weights (--init-from), or train both: "
            f"python -m training.stages --config {arguments.config}"
        )
    with group.main_first():
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.init_from is not None and latest_checkpoint(folder) is None:
            initial = read_initial(arguments.init_from)
            take_tokenizer(initial, recipe.model, folder / TOKENIZER_FILE)
        utterances, dev_utterances = training_utterances(recipe.data), dev_utterances_of(recipe.data)
        held_out = _held_out(arguments, recipe, utterances)
        learnt = [utterance for utterance in utterances if utterance.speaker not in held_out]
        texts = [utterance.text for utterance in learnt]
        # First what takes seconds and may be refused, then hours of audio.
        pieces, lexicon = targets(recipe, folder, texts, given=initial is not None)
        pcm, dev_pcm = training_store(arguments.runs, recipe.data), dev_store_of(arguments.runs, recipe.data)
        if group.main:
            tell_shared(learnt, dev_utterances)
            PcmStore.build(utterances, pcm)
            PcmStore.build(dev_utterances, dev_pcm)
        store, dev_store = PcmStore(pcm), PcmStore(dev_pcm)
    examples, counts = make_examples(
        utterances,
        pieces,
        lexicon,
        max_utterance_s=recipe.data.max_utterance_s,
        store=store,
        output_subsampling=recipe.model.output_subsampling,
    )
    dev_examples, dev_counts = make_examples(
        dev_utterances,
        pieces,
        lexicon,
        max_utterance_s=DEV_LONGEST_S,
        store=dev_store,
        output_subsampling=recipe.model.output_subsampling,
    )
    if not dev_examples:
        raise ValueError(
            f"none of {len(dev_utterances)} dev utterances of up to {DEV_LONGEST_S:g} s is left "
            f"({in_words(dev_counts)})"
        )
    examples = [example for example in examples if example.speaker not in held_out]

    torch.manual_seed(recipe.seed)
    model = Transformer(recipe.model)
    front_end = LogMel(FeatureConfig(n_mels=recipe.model.n_mels))
    if group.main:
        told = in_words(counts) + (", those held out included" if held_out else "")
        print(f"{len(examples)} utterances, {sum(e.duration_s for e in examples) / 3600:.2f} h; {told}")
        print(f"dev: {len(dev_examples)} utterances of up to {DEV_LONGEST_S:g} s; {in_words(dev_counts)}")
        print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    if initial is not None:
        model.load_state_dict(initial.weights)
        front_end.mean, front_end.std = initial.mean, initial.std
    elif latest_checkpoint(folder) is None:
        front_end.mean, front_end.std = cmvn(store, front_end, [example.index for example in examples])
    trainer = Trainer(recipe, model, front_end, store, examples, folder, device=device, processes=group)
    if trainer.resume() and arguments.init_from is not None and group.main:
        print("--init-from has no effect: the run has weights of its own")
    if arguments.compile:
        compile_blocks(model)
    if group.main:
        (folder / RECIPE_FILE).write_text(tomli_w.dumps(recipe_table(arguments)), encoding="utf-8")
    trainer.run(
        dev=dev_batches(dev_examples, dev_store, trainer.front_end, lead_frames=recipe.augment.lead_frames),
        evaluate_every=arguments.evaluate_every,
        save_every_s=arguments.save_minutes * 60,
        max_minutes=arguments.max_minutes and arguments.max_minutes - (time.monotonic() - begun) / 60,
    )
    if group.main and trainer.position.step == recipe.optim.max_steps:
        draw_run(folder)
    return trainer


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    with told_in_one_line("train"), processes(arguments.device) as (group, device):
        limit = math.inf if arguments.max_minutes is None else time.monotonic() + 60 * arguments.max_minutes
        recipe, folder = read_recipe(arguments)
        taken = timed(folder, arguments.device, group.world) if group.main else contextlib.nullcontext()
        with taken:
            trainer = train(arguments, recipe, folder, group, device)
        # One process whose time is up stops all of them.
        late = group.any(time.monotonic() >= limit)
        if not late and trainer.position.step < recipe.optim.max_steps:
            if group.main:
                print("interrupted; the same command goes on from here")
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
