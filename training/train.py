"""Train a recipe: `python -m training.train --config training/recipes/NAME.toml`.

Resumes from the newest checkpoint of the run's folder by itself. Decoded audio is kept beside the runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve each other

from pathlib import Path

import torch

from asr_service.features import FeatureConfig, LogMel
from asr_service.lexicon import Lexicon
from asr_service.model.transformer import Transformer
from asr_service.tokenizer import WordPieces
from training.checkpoint import load_checkpoint
from training.data import PcmStore
from training.dataset import cmvn, make_batch, make_examples
from training.lexicon import LEXICON_FILE, own_lexicon
from training.recipe import load_recipe
from training.selection import dev_store as dev_store_of
from training.selection import dev_utterances as dev_utterances_of
from training.selection import training_store, training_utterances
from training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe, a TOML file")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of checkpoints and decoded audio")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--init-from", type=Path, help="checkpoint whose averaged weights the run starts from")
    parser.add_argument("--evaluate-every", type=int, default=500, help="steps between looks at dev")
    parser.add_argument("--save-minutes", type=float, default=4.0)
    parser.add_argument("--seed", type=int, help="instead of the recipe's; the run's folder is then NAME-seedN")
    parser.add_argument("--hold-out", action="store_true", help="train without the recipe's tuning_speakers")
    parser.add_argument("--max-steps", type=int, help="instead of the recipe's")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = load_recipe(arguments.config)
    if arguments.max_steps is not None:
        recipe = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, max_steps=arguments.max_steps))
    name = recipe.name
    if arguments.seed is not None:
        recipe = dataclasses.replace(recipe, seed=arguments.seed)
        name += f"-seed{arguments.seed}"
    folder = arguments.runs / (f"{name}-held-out" if arguments.hold_out else name)
    folder.mkdir(parents=True, exist_ok=True)

    utterances, dev_utterances = training_utterances(recipe.data), dev_utterances_of(recipe.data)
    store = PcmStore.build(utterances, training_store(arguments.runs, recipe.data))
    dev_store = PcmStore.build(dev_utterances, dev_store_of(arguments.runs, recipe.data))

    tokenizer_path = folder / "tokenizer.json"
    if not tokenizer_path.exists():
        WordPieces.train((u.text for u in utterances), recipe.model.vocab_size).save(tokenizer_path)
    pieces = WordPieces.load(tokenizer_path)
    lexicon = None
    if recipe.model.phone_vocab_size:
        own = folder / LEXICON_FILE
        if not recipe.data.lexicon and not own.exists():
            own_lexicon(u.text for u in utterances).save(own)
        lexicon = Lexicon.load(Path(recipe.data.lexicon) if recipe.data.lexicon else own)
    examples, counts = make_examples(utterances, pieces, lexicon, max_utterance_s=recipe.data.max_utterance_s)
    if arguments.hold_out:
        held_out = recipe.data.tuning_speakers
        examples = [example for example in examples if utterances[example.index].speaker not in held_out]
    print(f"{len(examples)} utterances, {sum(e.duration_s for e in examples) / 3600:.2f} h; {counts}")

    torch.manual_seed(recipe.seed)
    model = Transformer(recipe.model)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    front_end = LogMel(FeatureConfig(n_mels=recipe.model.n_mels))
    if arguments.init_from is not None:
        state = load_checkpoint(arguments.init_from)
        model.load_state_dict(state["average"])
        front_end.mean, front_end.std = state["cmvn"]["mean"], state["cmvn"]["std"]
    else:
        front_end.mean, front_end.std = cmvn(store, front_end)
    dev_examples, _ = make_examples(dev_utterances, pieces, lexicon, max_utterance_s=20.0)
    chosen = sorted(dev_examples[:: max(1, len(dev_examples) // 64)], key=lambda e: e.duration_s)
    dev = [make_batch(chosen[i : i + 8], dev_store, front_end) for i in range(0, len(chosen), 8)]

    trainer = Trainer(recipe, model, front_end, store, examples, folder, device=torch.device(arguments.device))
    if trainer.resume():
        print(f"resumed at {trainer.position}")
    trainer.run(dev=dev, evaluate_every=arguments.evaluate_every, save_every_s=arguments.save_minutes * 60)


if __name__ == "__main__":
    main()
