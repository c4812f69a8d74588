"""Pictures of a run: `python -m training.curves --run runs/NAME` puts curves.png and attention.png into its folder."""

# Dimensions: B batch, H heads, U tokens, S encoder frames, d head width.

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor, nn

from asr_service.features import FeatureConfig, LogMel
from asr_service.model.bundle import TOKENIZER_FILE
from asr_service.model.config import TransformerConfig
from asr_service.model.transformer import Transformer
from asr_service.tokenizer import WordPieces
from training.checkpoint import load_newest
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.data import PcmStore
from training.dataset import make_batch, make_examples
from training.example import in_words
from training.loss import Batch
from training.metrics import read_metrics
from training.recipe import DEV_LONGEST_S, load_recipe
from training.selection import dev_store, dev_utterances

mpl.use("Agg")
from matplotlib import pyplot as plt

RECIPE_FILE = "recipe.toml"
LOSSES = ("total", "ctc", "phone_ctc", "lower_phone_ctc", "attention")


def smoothed(values: list[float], decay: float = 0.95) -> list[float]:
    """Exponential moving average that starts at the first value."""
    out: list[float] = []
    for value in values:
        out.append(value if not out or not math.isfinite(out[-1]) else decay * out[-1] + (1 - decay) * value)
    return out


def draw_curves(folder: Path) -> Path:
    """Losses of train (smoothed) and dev, learning rate, speed and waiting; raises ValueError when there is none."""
    rows = read_metrics(folder)
    train = [row for row in rows if row["kind"] == "train"]
    dev = [row for row in rows if row["kind"] == "dev"]
    if not train:
        raise ValueError(f"{folder}: no update in its metrics yet")
    figure, (losses, rate, speed) = plt.subplots(
        3, 1, figsize=(9, 10), sharex=True, gridspec_kw={"height_ratios": [3, 1, 1]}, layout="constrained"
    )
    steps = [row["step"] for row in train]
    for name in (name for name in LOSSES if name in train[0]):
        (line,) = losses.plot(steps, smoothed([row[name] for row in train]), label=f"{name}, train")
        if dev:
            looks = [row["step"] for row in dev]
            losses.plot(looks, [row[name] for row in dev], "o--", color=line.get_color(), label=f"{name}, dev")
    losses.set(ylabel="loss per token", title=folder.name, ylim=(0, None))
    losses.legend(ncols=2, fontsize="small")
    rate.plot(steps, [row["lr"] for row in train])
    rate.set(ylabel="learning rate", ylim=(0, None))
    speed.plot(steps, smoothed([row["audio_s"] / row["time_s"] for row in train]))
    speed.set(ylabel="s of audio / s", xlabel="updates", ylim=(0, None))
    waiting = speed.twinx()
    waiting.plot(steps, smoothed([100 * row["wait_s"] / row["time_s"] for row in train]), color="tab:red")
    waiting.set_ylabel("waiting for data, %", color="tab:red")
    waiting.set_ylim(0, 100)
    return _save(figure, folder / "curves.png")


@torch.no_grad()
def cross_attention(model: Transformer, batch: Batch) -> list[Tensor]:
    """How much each token's step looks at each encoder frame, teacher-forced: (B, H, U, S) a decoder layer."""
    weights: list[Tensor] = []

    def record(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        query, key, _, mask = inputs
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights.append(torch.softmax(scores.masked_fill(~mask, -math.inf), dim=-1))

    hooks = [
        module.register_forward_pre_hook(record)
        for name, module in model.decoder.named_modules()
        if name.endswith("cross_attention")
    ]
    try:
        begin = batch.tokens.new_full((len(batch.tokens), 1), WordPieces.bos_id)
        output = model.encode(batch.features, batch.lengths)
        model.decoder_logits(torch.cat([begin, batch.tokens], dim=1), output)
    finally:
        for hook in hooks:
            hook.remove()
    return weights


def draw_attention(model: Transformer, batch: Batch, pieces: WordPieces, path: Path) -> Path:
    """Each head of the last decoder layer over the batch's first utterance; row u is the step that gives token u."""
    weights = cross_attention(model.eval(), batch)[-1][0]
    tokens = batch.tokens[0, : batch.token_lengths[0]].tolist()
    labels = [pieces.pieces[token] for token in tokens] + ["end"]
    heads = len(weights)
    height = max(4.0, 0.16 * len(labels))
    figure, axes = plt.subplots(1, heads, figsize=(4 * heads, height), sharey=True, squeeze=False, layout="constrained")
    seconds = float(batch.lengths[0]) / 100
    for head, axis in enumerate(axes[0]):
        axis.imshow(
            weights[head].numpy(),
            aspect="auto",
            interpolation="none",
            extent=(0.0, seconds, len(labels) - 0.5, -0.5),
            vmin=0.0,
        )
        axis.set(title=f"head {head}", xlabel="s")
    axes[0][0].set_yticks(range(len(labels)), labels, fontsize=7)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def draw_run(folder: Path, config: Path | None = None) -> list[Path]:
    """Both pictures; the attention is that of the newest checkpoint over the first dev utterance that can be looked at.

    Raises ValueError for a folder without checkpoint or updates, and, once the curves are drawn, where there is no such
    utterance.
    """
    state = load_newest(folder)
    if state is None:
        raise ValueError(f"{folder}: no checkpoint there")
    recipe = load_recipe(config or folder / RECIPE_FILE)
    model_config = TransformerConfig.from_dict(state["model_config"])
    model = Transformer(model_config)
    model.load_state_dict(state["average"])
    front_end = LogMel(FeatureConfig(n_mels=model_config.n_mels))
    front_end.mean, front_end.std = state["cmvn"]["mean"], state["cmvn"]["std"]
    pieces = WordPieces.load(folder / TOKENIZER_FILE)
    curves = draw_curves(folder)
    utterances, store = dev_utterances(recipe.data), PcmStore(dev_store(folder.parent, recipe.data))
    examples, counts = make_examples(utterances, pieces, None, max_utterance_s=DEV_LONGEST_S, store=store)
    if not examples:
        raise ValueError(
            f"none of {len(utterances)} dev utterances of up to {DEV_LONGEST_S:g} s is left ({in_words(counts)})"
        )
    batch = make_batch(examples[:1], store, front_end, lead_frames=recipe.augment.lead_frames)
    return [curves, draw_attention(model, batch, pieces, folder / "attention.png")]


def main() -> None:
    parser = command_parser("curves", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--config", type=Path, help=f"recipe; by default the run's own {RECIPE_FILE}")
    arguments = parser.parse_args()
    with told_in_one_line("curves"):
        for path in draw_run(arguments.run, arguments.config):
            print(path)


if __name__ == "__main__":
    main()
