"""Make a bundle from a run: `python -m training.export --run runs/NAME --out DIR`.

The weights are the exponential moving average of the newest checkpoint; with `--average N`, the mean of the averages
at the N looks at dev that had the lowest loss; with `--also`, the mean of these and other checkpoints or bundles.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_service.commands.option_types import positive
from asr_service.decoding.config import DecodingConfig
from asr_service.errors import BundleError, ConfigError
from asr_service.features import FeatureConfig
from asr_service.lexicon import Lexicon
from asr_service.model.bundle import (
    CONFIG_FILE,
    LEXICON_FILE,
    LM_FILE,
    TOKENIZER_FILE,
    StreamingConfig,
    load_bundle,
    read_config,
    save_bundle,
)
from asr_service.model.config import TransformerConfig
from asr_service.tokenizer import WordPieces
from asr_service.toml_types import of_type
from training.average import best_paths, mean_of_averages
from training.checkpoint import latest_checkpoint
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.initial import read_initial, take_tokenizer
from training.recipe import SHIPPED_LEXICON
from training.recipe_values import typed

# In nepers: rounding leaves less, the statistics of another corpus are further away.
MAX_CMVN_DISTANCE = 1e-4


def chosen_weights(run: Path, average: int | None) -> list[Path]:
    """The newest checkpoint, or the `average` best by dev loss; raises ValueError when there are not so many."""
    if average is None:
        newest = latest_checkpoint(run)
        if newest is None:
            raise ValueError(f"{run}: no checkpoint there")
        return [newest]
    best = best_paths(run)
    if not 0 < average <= len(best):
        raise ValueError(f"--average {average}: {run} keeps the weights of {len(best)} looks at dev")
    return best[:average]


def check_alike(run: Path, state: dict[str, Any], path: Path) -> None:
    """Check that the checkpoint or bundle at `path` has the shape, tokenizer and CMVN of the run's checkpoint `state`.

    Raises ValueError that names what differs: weights for other features or other tokens have no mean.
    """
    other = read_initial(path)
    # The run has a tokenizer already, so the other one is only compared with it.
    take_tokenizer(other, TransformerConfig.from_dict(state["model_config"]), run / TOKENIZER_FILE)
    for name, theirs in (("mean", other.mean), ("std", other.std)):
        distance = float((theirs - state["cmvn"][name]).abs().max())
        if not distance <= MAX_CMVN_DISTANCE:
            raise ValueError(f"{path}: {name} of its features (CMVN) is up to {distance:.3g} away from that of {run}")


def kept_settings(out: Path) -> dict[str, Any]:
    """`streaming`, `decoding` and `dial` of the bundle that is at `out`, which people edit; empty where there is none.

    Raises BundleError that names the file and the field that a server would refuse.
    """
    if not (out / CONFIG_FILE).exists():
        return {"streaming": {}, "decoding": {}, "dial": {}}
    kept = read_config(out)
    for place, table in [("", kept), *((f"dial.{latency}: ", table) for latency, table in kept["dial"].items())]:
        try:
            streaming = of_type("streaming", table.get("streaming", {}), dict)
            StreamingConfig(**typed("streaming", streaming, StreamingConfig))
            DecodingConfig.from_dict(table.get("decoding", {}))
        except (ValueError, BundleError, ConfigError) as error:
            told = str(error).removeprefix(f"{CONFIG_FILE}: ")
            raise BundleError(f"{out / CONFIG_FILE}: {place}{told}") from error
    return kept


def _trained_lead_frames(state: Mapping[str, Any]) -> int:
    """The silence that every utterance of the run began with: without it such a model hears what it never has."""
    recipe = (state.get("run") or {}).get("recipe", {})
    return int(recipe.get("augment", {}).get("lead_frames", 0))


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_parser("export", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="bundle directory")
    parser.add_argument("--name", help="of the model, as a server lists it; default: that of the run's folder")
    parser.add_argument(
        "--lexicon", type=Path, help="default: the run's own, where it has one, else the shipped model's"
    )
    parser.add_argument(
        "--also",
        type=Path,
        action="append",
        default=[],
        metavar="WEIGHTS",
        help="average with this checkpoint or bundle, which --run went on from (model soups, Wortsman et al. 2022); "
        "repeatable",
    )
    parser.add_argument(
        "--average",
        type=positive,
        help="how many of the best by dev loss are averaged; default: only the newest is taken",
    )
    parser.add_argument("--int8", action="store_true", help="weights in one byte instead of two: half the file")
    arguments = parser.parse_args(argv)
    with told_in_one_line("export"):
        export(arguments)


def export(arguments: argparse.Namespace) -> None:
    """Write the bundle, and read it as a server would.

    Raises ValueError or BundleError that names the weights or the file that are missing or do not fit.
    """
    if not (arguments.run / TOKENIZER_FILE).exists():
        raise ValueError(f"no run in {arguments.run}")
    pieces = WordPieces.load(arguments.run / TOKENIZER_FILE)
    paths = [*chosen_weights(arguments.run, arguments.average), *arguments.also]
    state, weights = mean_of_averages(paths)
    for path in dict.fromkeys(arguments.also):
        check_alike(arguments.run, state, path)
    config = TransformerConfig.from_dict(state["model_config"])
    own = arguments.run / LEXICON_FILE
    lexicon = arguments.lexicon or (own if own.is_file() else SHIPPED_LEXICON)
    # Search weights and chunks are chosen after training and belong to the bundle: exporting again keeps them.
    kept = kept_settings(arguments.out)
    save_bundle(
        arguments.out,
        name=arguments.name or arguments.run.resolve().name,
        weights=weights,
        mean=state["cmvn"]["mean"],
        std=state["cmvn"]["std"],
        model_config=config,
        feature_config=FeatureConfig(n_mels=config.n_mels),
        streaming=StreamingConfig(**{"lead_frames": _trained_lead_frames(state), **kept["streaming"]}),
        decoding=kept["decoding"],
        dial=kept["dial"],
        pieces=pieces,
        lexicon=Lexicon.load(lexicon) if config.phone_vocab_size else None,
        int8=arguments.int8,
    )
    load_bundle(arguments.out)
    without = "" if (arguments.out / LM_FILE).exists() else f"; no n-gram ({LM_FILE}) in it"
    print(f"{arguments.out}: weights of {', '.join(path.name for path in paths)}{without}")


if __name__ == "__main__":
    main()
