"""Tune a recipe's search on training speakers that a run of its own never heard; prints the recipe's [bundle] table.

    python -m training.tune_recipe --recipe an4

Trains the recipe once without its `tuning_speakers`, makes a bundle whose n-gram has not read them either, and looks
for the weights of the lexicon beam, then of the final ranking, that make the fewest word errors on them. Dev is left
alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from asr_service.commands.option_types import positive
from asr_service.decoding.lexicon_beam import LexiconBeamOptions
from asr_service.decoding.pronunciation_tree import PronunciationTree
from asr_service.engine.runner import ModelRunner
from asr_service.model.bundle import Bundle, load_bundle
from asr_service.types import Mode
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.data import PcmStore, Utterance
from training.posteriors import DevUtterance, encode
from training.ranking import IN_CONFIG, tune_ranking
from training.recipe import BundleConfig, load_recipe
from training.results import RECIPES, make_bundle
from training.selection import spelled_out, training_store, training_utterances
from training.stages import stage
from training.tune_decoding import candidates, first_pass, ranking_lists

_LM_WEIGHTS = (0.3, 0.5, 0.7, 0.9, 1.2)
_WORD_SCORES = (-1.0, 0.0, 1.0, 2.0)
# What the final ranking is tuned on.
_RANKED = ("phones", "lm", "words", "pieces", "attention")


def rows_of(manifest: str, utterances: Sequence[Utterance], store: PcmStore, speakers: Collection[str]) -> list[int]:
    """Which utterances are of `speakers`, with audio and a text that is spelled out; raises ValueError for none."""
    theirs = [row for row, utterance in enumerate(utterances) if utterance.speaker in speakers]
    return spelled_out(manifest, utterances, [row for row in theirs if row not in store.skipped])


def encoded_rows(
    bundle: Bundle, utterances: Sequence[Utterance], store: PcmStore, rows: Sequence[int], *, threads: int
) -> list[DevUtterance]:
    """What the encoder says of these utterances."""
    runner = ModelRunner(bundle, streams=1, threads=threads)
    dev = []
    for row in rows:
        encoded = encode(runner, store[row].astype(np.float32) / 32768.0, Mode.ACCURATE)
        dev.append(DevUtterance(utterances[row].text, utterances[row].corpus, encoded))
    return dev


def tune_beam(tree: PronunciationTree, dev: Sequence[DevUtterance]) -> LexiconBeamOptions:
    """The lexicon beam with the weights of the grid that make the fewest errors; prints each."""
    start = LexiconBeamOptions()
    rates = {}
    for lm_weight, word_score in itertools.product(_LM_WEIGHTS, _WORD_SCORES):
        options = dataclasses.replace(start, lm_weight=lm_weight, word_score=word_score)
        rates[lm_weight, word_score] = first_pass(tree, dev, options)[0]
        print(f"lm_weight {lm_weight:.1f}  word_score {word_score:4.1f}  WER {rates[lm_weight, word_score]:6.2%}")
    # Of equals, the one in the middle of the grid.
    best = min(rates, key=lambda weights: (rates[weights], abs(weights[0] - 0.7) + abs(weights[1])))
    return dataclasses.replace(start, lm_weight=best[0], word_score=best[1])


def bundle_table(bundle: BundleConfig, beam: LexiconBeamOptions, ranking: Mapping[str, float]) -> str:
    """A recipe's [bundle] with these weights."""
    lines = ["[bundle]", f"ngram_order = {bundle.ngram_order}", f"lead_frames = {bundle.lead_frames}"]
    for mode in Mode:
        lines += [f"[bundle.decoding.{mode.value}]", f"lm_weight = {beam.lm_weight}", f"word_score = {beam.word_score}"]
    lines += ["[bundle.decoding.rescoring]", *(f"{IN_CONFIG[name]} = {ranking[name]:.2f}" for name in _RANKED)]
    return "\n".join(lines)


def main() -> None:
    parser = command_parser("tune_recipe", __doc__)
    parser.add_argument("--recipe", required=True, help=f"name of a file in {RECIPES.name}/")
    parser.add_argument("--seed", type=int, default=1, help="of the run; default: 1")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of checkpoints and decoded audio")
    parser.add_argument("--threads", type=positive, default=1, help="of torch; default: 1")
    parser.add_argument("--n-best", type=positive, default=32, help="hypotheses that are ranked")
    arguments = parser.parse_args()
    with told_in_one_line("tune_recipe"):
        _tune(arguments)


def _tune(arguments: argparse.Namespace) -> None:
    config = RECIPES / f"{arguments.recipe}.toml"
    recipe = load_recipe(config)
    held_out = recipe.data.tuning_speakers
    if not held_out:
        raise ValueError(f"{config}: data.tuning_speakers names nobody")
    options = ["--runs", arguments.runs, "--seed", arguments.seed, "--threads", arguments.threads, "--hold-out"]
    last = stage(config, [str(option) for option in options])
    last.train()
    utterances = training_utterances(recipe.data)
    texts = [utterance.text for utterance in utterances if utterance.speaker not in held_out]
    bundle = load_bundle(make_bundle(last, texts))
    if bundle.lexicon is None or bundle.lm_path is None:
        raise ValueError(f"{config}: without phones and an n-gram there is nothing to tune")
    store = PcmStore.build(utterances, training_store(arguments.runs, recipe.data))
    rows = rows_of(recipe.data.manifest, utterances, store, held_out)
    dev = encoded_rows(bundle, utterances, store, rows, threads=arguments.threads)
    words = sum(len(utterance.text.split()) for utterance in dev)
    print(f"{len(dev)} utterances, {words} words of {len(held_out)} speakers")

    tree = PronunciationTree(bundle.lexicon, bundle.lm_path)
    beam = tune_beam(tree, dev)
    with torch.inference_mode():
        found = [candidates(bundle, tree, bundle.lexicon, item, beam, arguments.n_best) for item in dev]
    lists = ranking_lists(found, ("lexicon",))
    oracle = sum(int(errors.min()) for _, errors in lists)
    weights, errors = tune_ranking(lists, _RANKED)
    print(f"ranked: WER {errors / words:.2%}; best of each list {oracle / words:.2%}; weights {weights}")
    print(f"\n{bundle_table(recipe.bundle, beam, weights)}")


if __name__ == "__main__":
    main()
