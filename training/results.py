"""Train a recipe with each seed, make bundles, measure them on the recipe's dev set, and write RESULTS.md anew.

    python -m training.results --recipe an4 --seeds 1,2,3
    python -m training.results --recipe libri-mini --bundle asr_service/models/en-s    # no training
    python -m training.results                                                        # RESULTS.md alone

Record and table of a recipe that is not of training/recipes go beside its runs: RUNS/results and RUNS/RESULTS.md. A
recipe is trained as `training.stages` does it, in RUNS/NAME-seedN; its bundle there gets what `[bundle]` of the recipe
says: an n-gram of its own training transcripts, or all that another bundle has.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from asr_service.commands.option_types import positive
from asr_service.evaluation.normalizer import normalizer
from asr_service.model.bundle import (
    CARD_FILE,
    CONFIG_FILE,
    LM_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Bundle,
    load_bundle,
)
from asr_service.parent_process import end_with_parent
from asr_service.types import Mode
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.data import Utterance
from training.lm import estimate
from training.measure import Measurement, measure
from training.recipe import load_recipe
from training.results_table import SYSTEMS, table
from training.selection import dev_utterances, spelled_out, training_utterances
from training.spent import commit, machine, today
from training.stages import Stage, stage

RECIPES = Path(__file__).parent / "recipes"
RECORDS = Path(__file__).parent / "results"
TABLE = Path(__file__).parents[1] / "RESULTS.md"
# Errors that the table names, of a system and corpus.
MAX_CONFUSIONS = 20
# Of a bundle, what is not taken from the one that it is to be like.
_OWN_FILES = (WEIGHTS_FILE, TOKENIZER_FILE, CARD_FILE)


def make_bundle(stage: Stage, texts: Sequence[str]) -> Path:
    """What the stage gives, with the recipe's search settings and an n-gram of normalised `texts`, or like a bundle."""
    wanted = stage.recipe.bundle
    if wanted.like:
        ignored = shutil.ignore_patterns(*_OWN_FILES)
        shutil.copytree(wanted.like_directory, stage.bundle, ignore=ignored, dirs_exist_ok=True)
    out = stage.export()
    if wanted.like:
        return out
    path = out / CONFIG_FILE
    config = json.loads(path.read_text(encoding="utf-8"))
    config["decoding"], config["streaming"]["lead_frames"] = wanted.decoding, wanted.lead_frames
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if wanted.ngram_order:
        estimate(texts, out / LM_FILE, order=wanted.ngram_order)
    elif wanted.language_model:
        shutil.copyfile(wanted.language_model, out / LM_FILE)
    return out


def measurements(
    bundle: Bundle, corpora: dict[str, list[Utterance]], jobs: int = 1
) -> Iterator[tuple[str, str, Measurement]]:
    """Corpus, system and what was measured, for each, `jobs` at a time in processes of their own; prints as it goes."""
    systems = [system for system in SYSTEMS if bundle.lm_path is not None or not system.endswith(", LM")]
    tasks = [(corpus, system) for corpus in corpora for system in systems]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=end_with_parent) as pool:
        places = [bundle.directory] * len(tasks)
        found = pool.map(_measure, places, [corpora[corpus] for corpus, _ in tasks], [system for _, system in tasks])
        for (corpus, system), result in zip(tasks, found, strict=True):
            print(
                f"{corpus:32s} {system:18s} WER {result.wer:7.2%}  utterances right {result.accuracy:7.2%}  "
                f"real-time factor {result.real_time_factor:.3f}",
                flush=True,
            )
            yield corpus, system, result


def _measure(directory: Path, utterances: list[Utterance], system: str) -> Measurement:
    mode, _, lm = system.partition(", ")
    return measure(load_bundle(directory), utterances, Mode(mode), with_lm=lm == "LM")


def by_corpus(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    groups: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        groups.setdefault(utterance.corpus, []).append(utterance)
    return groups


def add(record: dict[str, Any], corpus: str, system: str, result: Measurement) -> None:
    """Put one run's measurement into the record, beside those of the runs before."""
    words = " ".join(map(str, result.words))
    place = record["measurements"].setdefault(corpus, {"words": words, "systems": {}})
    kept = place["systems"].setdefault(system, {"errors": [], "real_time_factor": [], "confusions": []})
    kept["errors"].append(" ".join(map(str, result.errors)))
    kept["real_time_factor"].append(round(result.real_time_factor, 4))
    total = Counter({(said, heard): count for said, heard, count in kept["confusions"]})
    total.update({(said, heard): count for said, heard, count in result.confusions})
    ordered = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    kept["confusions"] = [[said, heard, count] for (said, heard), count in ordered]


def keep_commonest(record: dict[str, Any]) -> None:
    """Cut the errors down to those that the table shows, once those of all seeds have been added up."""
    for place in record["measurements"].values():
        for kept in place["systems"].values():
            del kept["confusions"][MAX_CONFUSIONS:]


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_parser("results", __doc__)
    parser.add_argument(
        "--recipe",
        help=f"name of a file in {RECIPES.name}/, or a TOML file; without it, only the table is written anew",
    )
    parser.add_argument("--seeds", default="1", help="comma-separated; each is a run; default: 1")
    parser.add_argument("--bundle", type=Path, help="measure this bundle instead of training")
    parser.add_argument("--corpus", action="append", default=[], help="only this corpus of dev; may be given again")
    parser.add_argument(
        "--every", type=positive, default=1, help="only every Nth utterance of each corpus, for a quick look"
    )
    parser.add_argument("--jobs", type=positive, default=1, help="processes that recognise side by side")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of checkpoints and decoded audio")
    parser.add_argument("--records", type=Path, help="folder of the records, instead of that of the repository")
    parser.add_argument("--table", type=Path, help="instead of the repository's RESULTS.md")
    parser.add_argument("--threads", type=positive, default=1, help="of torch; default: 1")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    with told_in_one_line("results"):
        _write(arguments)


def _write(arguments: argparse.Namespace) -> None:
    records, path = RECORDS, TABLE
    if arguments.recipe is not None and not _file(arguments.recipe).resolve().is_relative_to(RECIPES.resolve()):
        records, path = arguments.runs / RECORDS.name, arguments.runs / TABLE.name
    records, path = arguments.records or records, arguments.table or path
    if arguments.recipe is not None:
        record = measured(arguments)
        records.mkdir(parents=True, exist_ok=True)
        (records / f"{record['name']}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    path.write_text(table(records), encoding="utf-8")
    print(f"{path} written")


def _file(recipe: str) -> Path:
    """The recipe's file, by its name in training/recipes or by its path."""
    return Path(recipe) if recipe.endswith(".toml") else RECIPES / f"{recipe}.toml"


def _command(arguments: argparse.Namespace) -> list[str]:
    """What to type for the same record, wherever the runs lie."""
    command = ["python", "-m", "training.results", "--recipe", arguments.recipe]
    command += ["--bundle", str(arguments.bundle)] if arguments.bundle else ["--seeds", arguments.seeds]
    for corpus in arguments.corpus:
        command += ["--corpus", corpus]
    return command + (["--every", str(arguments.every)] if arguments.every > 1 else [])


def _last(config: Path, seed: int, arguments: argparse.Namespace) -> Stage:
    """The last stage of a run, of which nothing is made yet. Raises ValueError where what a stage took is not known."""
    options = ["--runs", arguments.runs, "--seed", seed, "--threads", arguments.threads]
    last = stage(config, [str(option) for option in options])
    last.check_timed()
    return last


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """The record of one recipe: trained, or a bundle as it is, and measured."""
    config = _file(arguments.recipe)
    recipe = load_recipe(config)
    training = training_utterances(recipe.data)
    utterances = dev_utterances(recipe.data)
    rows = spelled_out(recipe.data.dev_manifest, utterances, range(len(utterances)))
    dev = by_corpus([utterances[row] for row in rows])
    for corpus in arguments.corpus:
        if corpus not in dev:
            raise ValueError(f"--corpus {corpus}: dev of {recipe.name} has {', '.join(sorted(dev))}")
    corpora = {corpus: dev[corpus][:: arguments.every] for corpus in sorted(arguments.corpus or dev)}
    record: dict[str, Any] = {
        "name": recipe.name,
        "command": shlex.join(_command(arguments)),
        "date": today(),
        "commit": commit(),
        "machine": machine(arguments.threads),
        "normalizer": normalizer("basic").label,
        "data_h": round(sum(utterance.duration_s for utterance in training) / 3600, 4),
        "utterances": len(training),
        "runs": [],
        "measurements": {},
    }
    seeds = [None] if arguments.bundle else [int(seed) for seed in arguments.seeds.split(",")]
    for last in [None if seed is None else _last(config, seed, arguments) for seed in seeds]:
        if last is None:
            bundle = load_bundle(arguments.bundle)
        else:
            print(f"seed {last.recipe.seed}", flush=True)
            last.train()
            bundle = load_bundle(make_bundle(last, [utterance.text for utterance in training]))
            record["runs"].append({"seed": last.recipe.seed, "steps": last.steps, **dataclasses.asdict(last.spent())})
        record["parameters"] = sum(parameter.numel() for parameter in bundle.model.parameters())
        for corpus, system, result in measurements(bundle, corpora, arguments.jobs):
            add(record, corpus, system, result)
    keep_commonest(record)
    return record


if __name__ == "__main__":
    main()
