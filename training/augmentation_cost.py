"""What each augmentation costs: milliseconds to make a batch, alone and all of the recipe's together.

    python -m training.augmentation_cost --config training/recipes/libri-mini.toml --store runs/pcm/NAME

NAME is the folder of decoded audio that training with the recipe has left in runs/pcm.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from asr_service.commands.option_types import positive
from asr_service.features import LogMel
from training.augmentation.rooms import room_bank
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.data import SAMPLE_RATE_HZ, PcmStore, batches_by_seconds
from training.dataset import BatchMaker, Example
from training.recipe import AugmentConfig, load_recipe

NOTHING = AugmentConfig(speeds=(1.0,), freq_masks=0, time_masks=0)


def variants(recipe: AugmentConfig) -> dict[str, AugmentConfig]:
    """Settings by name: none, each probability of the recipe that is not zero alone, and the recipe."""
    probabilities = [
        field.name
        for field in dataclasses.fields(recipe)
        if field.name.endswith("_probability") and field.name != "chunk_probability" and getattr(recipe, field.name)
    ]
    zeros: dict[str, Any] = dict.fromkeys(probabilities, 0.0)
    plain = dataclasses.replace(recipe, **zeros)
    nothing = dataclasses.replace(plain, speeds=NOTHING.speeds, freq_masks=0, time_masks=0)
    alone = {name: dataclasses.replace(nothing, **{name: getattr(recipe, name)}) for name in probabilities}
    return {"features alone": nothing, "speed and masks": plain, **alone, "all of the recipe": recipe}


def measure(maker: BatchMaker, batches: list[list[int]]) -> tuple[list[float], float]:
    """Seconds of each batch, and seconds of audio in all of them."""
    times, audio_s = [], 0.0
    for number, batch in enumerate(batches):
        begun = time.perf_counter()
        audio_s += maker(batch, str(number)).seconds
        if maker.device.type == "cuda":
            torch.cuda.synchronize(maker.device)
        times.append(time.perf_counter() - begun)
    return times, audio_s


def main() -> None:
    parser = command_parser("augmentation_cost", __doc__)
    parser.add_argument("--config", type=Path, required=True, help="recipe, a TOML file")
    parser.add_argument("--store", type=Path, required=True, help="folder of decoded audio that training left")
    parser.add_argument("--batches", type=positive, default=20, help="to time; default: 20")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help=f"that makes them; default here: {default}")
    arguments = parser.parse_args()
    with told_in_one_line("augmentation_cost"):
        _report(arguments)


def _report(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    recipe, store = load_recipe(arguments.config), PcmStore(arguments.store)
    durations = [(end - start) / SAMPLE_RATE_HZ for start, end in map(store.extent, range(len(store)))]
    # The folder of a LibriSpeech or AN4 recording does not say its speaker, the beginning of its name does.
    examples = [
        Example(i, duration, (1,), (1,), Path(source).stem.split("-")[0])
        for i, (duration, source) in enumerate(zip(durations, store.sources, strict=True))
    ]
    usable = [i for i, duration in enumerate(durations) if 0 < duration <= recipe.data.max_utterance_s]
    batches = batches_by_seconds(durations, usable, batch_s=recipe.data.batch_s, rng=random.Random(0))
    if recipe.augment.room_probability:
        room_bank(store.folder, recipe.augment.rooms, SAMPLE_RATE_HZ)
    print(f"{arguments.batches} batches of {recipe.data.batch_s:.0f} s on {arguments.device}")
    for name, config in variants(recipe.augment).items():
        maker = BatchMaker(examples, store, LogMel(), config, torch.device(arguments.device))
        measure(maker, batches[:2])
        times, audio_s = measure(maker, batches[: arguments.batches])
        print(
            f"{name:24} {1e3 * statistics.median(times):7.1f} ms a batch (largest {1e3 * max(times):.1f}), "
            f"{audio_s / sum(times):.0f} s of audio per second"
        )


if __name__ == "__main__":
    main()
