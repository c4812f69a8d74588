r"""Train the neural language model that ranks hypotheses beside the n-gram, on texts alone.

    python -m training.tokenizer --text lm_text.txt.gz --text cased_text.txt.gz --vocab-size 4096 \
        --out runs/neural-lm/tokenizer.json
    python -m training.neural_lm --text lm_text.txt.gz --text cased_text.txt.gz --manifest train.jsonl \
        --exclude-corpus fsdd_8k --tokenizer runs/neural-lm/tokenizer.json --run runs/neural-lm \
        --out BUNDLE --dev dev.jsonl

Texts are normalised as transcripts are. What it reads is cut into passages as recordings are cut into utterances: some
sentences together, or a part of one. A run that was interrupted goes on from its newest checkpoint when the command is
given again. `--out` gets `neural_lm.safetensors` and `neural_lm_tokenizer.json`, which a bundle holds.
"""

# Dimensions: N tokens of all texts, B passages, U tokens of a passage.

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import random
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from asr_service.commands.option_types import positive
from asr_service.model.neural_lm import NeuralLM, NeuralLMConfig, load_neural_lm, save_neural_lm
from asr_service.tokenizer import WordPieces
from training.checkpoint import load_newest, save_checkpoint
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.distributed import use_device
from training.lm import add_text_options, chosen_sentences, dev_sentences
from training.optim import learning_rate_factor, make_optimizers
from training.precision import compute_dtype
from training.recipe import OptimConfig
from training.run_options import add_device_option
from training.tokenizer import check_transcripts

# A passage's tokens without its end token; beyond LONGEST it is cut between two words.
SHORTEST, USUAL, LONGEST = 4, 72, 112
# This share of the passages ends where the speaker would take breath, not where the sentence ends.
CUT_SHARE = 0.3
# Batches among which passages are sorted by length.
POOL = 100
IGNORED = -100
SAVE_EVERY_S = 300.0


@dataclass(frozen=True, slots=True)
class Text:
    """Sentences as tokens, one after the other.

    Attributes:
        tokens: (N,).
        sentence_ends: ascending places after a sentence's last token; the last is N.
        word_starts: ascending places of tokens that start words, and N.
        pieces: the texts of the vocabulary's tokens.
    """

    tokens: NDArray[np.uint16]
    sentence_ends: NDArray[np.int64]
    word_starts: NDArray[np.int64]
    pieces: tuple[str, ...]


def tokenised(sentences: Iterable[str], pieces: WordPieces) -> Text:
    """Raises ValueError where there is no sentence, or the vocabulary has too many pieces."""
    if pieces.vocab_size > 1 << 16:
        raise ValueError(f"the tokenizer has {pieces.vocab_size} pieces, more than 65536")
    tokens, ends = array("H"), array("q")
    for sentence in sentences:
        tokens.extend(pieces.encode(sentence))
        ends.append(len(tokens))
    if not tokens:
        raise ValueError("there is no text to learn from")
    found = np.frombuffer(tokens, dtype=np.uint16)
    starts = np.array([pieces.starts_word(token) for token in range(pieces.vocab_size)])
    return Text(found, np.array(ends), np.append(np.flatnonzero(starts[found]), len(found)), pieces.pieces)


def passages(text: Text, rng: random.Random) -> list[tuple[int, int]]:
    """The text from its beginning to its end, cut into (first token, one after the last)."""
    cuts, start, end = [], 0, len(text.tokens)
    while start < end:
        least = min(start + rng.randint(SHORTEST, USUAL), end)
        boundaries = text.word_starts if rng.random() < CUT_SHARE else text.sentence_ends
        stop = int(boundaries[np.searchsorted(boundaries, least)])
        if stop - start > LONGEST:
            before = int(text.word_starts[np.searchsorted(text.word_starts, start + LONGEST, side="right") - 1])
            stop = before if before > start else start + LONGEST
        cuts.append((start, stop))
        start = stop
    return cuts


def batches(text: Text, epoch: int, *, seed: int, batch_tokens: int) -> Iterator[list[tuple[int, int]]]:
    """The passages of an epoch in an order drawn at random, those of a batch of similar length."""
    rng = random.Random(f"{seed}/{epoch}")
    cuts = passages(text, rng)
    rng.shuffle(cuts)
    batch_rows = max(1, batch_tokens // USUAL)
    for first in range(0, len(cuts), POOL * batch_rows):
        pool = sorted(cuts[first : first + POOL * batch_rows], key=lambda cut: cut[1] - cut[0])
        planned: list[list[tuple[int, int]]] = [[]]
        for cut in pool:
            if planned[-1] and (len(planned[-1]) + 1) * (cut[1] - cut[0] + 1) > batch_tokens:
                planned.append([])
            planned[-1].append(cut)
        rng.shuffle(planned)
        yield from planned


def padded(rows: Sequence[NDArray[np.uint16]]) -> tuple[Tensor, Tensor]:
    """Inputs from the begin token on and targets to the end token, both (B, U+1); padding is no target."""
    width = max(map(len, rows)) + 1
    inputs = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), width), IGNORED)
    for row, tokens in enumerate(rows):
        piece_ids = torch.from_numpy(tokens.astype(np.int64))
        inputs[row, 0] = WordPieces.bos_id
        inputs[row, 1 : len(tokens) + 1] = targets[row, : len(tokens)] = piece_ids
        targets[row, len(tokens)] = WordPieces.eos_id
    return inputs, targets


def summed_loss(model: NeuralLM, rows: Sequence[NDArray[np.uint16]]) -> tuple[Tensor, int]:
    """Cross-entropy summed over the rows' tokens with their end tokens, and how many these are."""
    inputs, targets = padded(rows)
    count = int((targets != IGNORED).sum())
    device = model.embedding.weight.device
    logits, wanted = model(inputs.to(device)), targets.to(device).flatten()
    return F.cross_entropy(logits.float().flatten(0, 1), wanted, ignore_index=IGNORED, reduction="sum"), count


@torch.inference_mode()
def perplexity(model: NeuralLM, pieces: WordPieces, sentences: Sequence[str]) -> float:
    """A word (sentence ends count as words, as for the n-gram), unknown words included."""
    model.eval()
    losses = [float(summed_loss(model, [np.array(pieces.encode(text), dtype=np.uint16)])[0]) for text in sentences]
    return math.exp(sum(losses) / sum(len(text.split()) + 1 for text in sentences))


class Run:
    """A model in training; its state is kept in `folder`."""

    def __init__(
        self,
        text: Text,
        config: NeuralLMConfig,
        optim: OptimConfig,
        folder: Path,
        *,
        seed: int,
        batch_tokens: int,
        device: torch.device | None = None,
    ) -> None:
        """`device`: by default the CPU."""
        torch.manual_seed(seed)
        self.text, self.optim, self.folder = text, optim, folder
        self.seed, self.batch_tokens = seed, batch_tokens
        self.device = device or torch.device("cpu")
        self.model = NeuralLM(config).to(self.device)
        self.compute_dtype = compute_dtype("auto", self.device)
        self.optimizers = make_optimizers(self.model, optim)
        self.step = self.skipped_in_a_row = 0
        self._identity = self._what_it_reads()

    def _what_it_reads(self) -> dict[str, Any]:
        """What a checkpoint keeps of its run: with another of these, it would read part of an epoch twice, or never."""
        pieces = json.dumps(self.text.pieces).encode()
        words = self.text.tokens.tobytes() + self.text.sentence_ends.tobytes()
        return {
            "seed": self.seed,
            "batch_tokens": self.batch_tokens,
            "SHA-256 of the word pieces": hashlib.sha256(pieces).hexdigest(),
            "SHA-256 of the text": hashlib.sha256(words).hexdigest(),
        }

    def weights_of(self, bundle: Path, pieces: WordPieces) -> dict[str, Tensor]:
        """A bundle's weights. A model of fewer layers gets blocks on top whose residual branches are zero: it predicts
        what it did, and goes on learning with more (function-preserving growth, Chen et al. 2016).

        Raises ValueError where the bundle has no model, or one of another shape, of more layers or for other `pieces`.
        """
        found = load_neural_lm(bundle)
        if found is None:
            raise ValueError(f"{bundle} has no neural language model")
        model, own = found[0], self.model.config
        same = model.config == dataclasses.replace(own, layers=model.config.layers) and found[1].pieces == pieces.pieces
        if not same or model.config.layers > own.layers:
            raise ValueError(f"{bundle}: its neural language model has another shape or other word pieces")
        branches = ("out_proj.weight", "out_proj.bias", "linear2.weight", "linear2.bias")
        new = {name: value for name, value in self.model.state_dict().items() if name.endswith(branches)}
        return {name: torch.zeros_like(value) for name, value in new.items()} | model.state_dict()

    def move_to(self, weights: Mapping[str, Tensor], share: float = 1.0) -> None:
        """Take these weights, or the mean of which so large a `share` is them; what is not in them stays."""
        own = self.model.state_dict()
        self.model.load_state_dict(own | {name: own[name].lerp(weights[name].to(own[name]), share) for name in weights})

    def resume(self) -> bool:
        """Go on from the newest checkpoint, if there is one.

        Raises ValueError where its model has another shape, or its run another seed, other batches or other words.
        """
        state = load_newest(self.folder)
        if state is None:
            return False
        shape, saved = dataclasses.asdict(self.model.config), state["config"]
        if others := [name for name in shape if shape[name] != saved.get(name)]:
            named = "; ".join(f"{name} was {saved.get(name)}, is {shape[name]}" for name in others)
            raise ValueError(f"{self.folder} has another model, give its options again or name another --run: {named}")
        now, before = self._identity, state.get("run")
        if before is None:  # older than what they keep of their run
            print(f"{self.folder}: its checkpoint does not say what text and seed it is of; going on with these")
        elif different := [name for name in now if before[name] != now[name]]:
            named = "; ".join(f"{name} was {before[name]!r}, is {now[name]!r}" for name in different)
            raise ValueError(f"{self.folder} holds another run, move it away or name another --run: {named}")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]
        return True

    def save(self) -> None:
        save_checkpoint(
            self.folder,
            {
                "step": self.step,
                "config": dataclasses.asdict(self.model.config),
                "run": self._identity,
                "model": self.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            },
        )

    def planned(self) -> Iterator[list[tuple[int, int]]]:
        """All batches from the beginning of the run on, without end."""
        epoch = 0
        while True:
            yield from batches(self.text, epoch, seed=self.seed, batch_tokens=self.batch_tokens)
            epoch += 1

    def train(self) -> None:
        """To `optim.max_steps`, with a checkpoint every few minutes and at the end.

        Raises ValueError for a run that is further already, RuntimeError as `update` does.
        """
        if self.step > self.optim.max_steps:
            raise ValueError(f"--steps is {self.optim.max_steps}, but {self.folder} is at step {self.step} already")
        self.model.train()
        saved, mean, seen, begun = time.monotonic(), 0.0, 0, time.monotonic()
        plan = self.planned()
        for _ in range(self.step):
            next(plan)
        for cuts in tqdm(plan, initial=self.step, total=self.optim.max_steps, mininterval=10, unit="step"):
            if self.step == self.optim.max_steps:
                break
            loss, count = self.update([self.text.tokens[start:end] for start, end in cuts])
            seen += count
            if math.isfinite(loss):
                mean = loss if not mean else 0.98 * mean + 0.02 * loss
            if self.step % 100 == 0:
                rate = seen / (time.monotonic() - begun)
                tqdm.write(f"step {self.step} loss {mean:.3f} a token, {rate:.0f} tokens/s")
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()

    def update(self, rows: Sequence[NDArray[np.uint16]]) -> tuple[float, int]:
        """One step of the optimisers; returns the loss a token and the tokens.

        One whose loss or gradient is not finite changes no weight. Raises RuntimeError after `optim.max_skipped` such
        steps in a row.
        """
        factor = learning_rate_factor(self.step, self.optim)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.compute_dtype == torch.bfloat16):
            loss, count = summed_loss(self.model, rows)
        loss = loss / count
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip_norm)
        value = float(loss.detach())
        finite = math.isfinite(value) and math.isfinite(norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.optim.lr * factor
            if finite:
                optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self._count_skipped(finite)
        return value, count

    def _count_skipped(self, finite: bool) -> None:
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if not finite:
            tqdm.write(f"step {self.step}: loss or gradient not finite, skipped")
        if self.skipped_in_a_row >= self.optim.max_skipped:
            raise RuntimeError(
                f"{self.skipped_in_a_row} updates in a row were not finite, the last one step {self.step}; the weights "
                f"in {self.folder} are those from before"
            )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("neural_lm", __doc__)
    add_text_options(parser)
    parser.add_argument("--tokenizer", type=Path, required=True, help="of training.tokenizer")
    parser.add_argument("--run", type=Path, required=True, help="folder of the checkpoints")
    start = "bundle whose neural language model a new run starts from; it may have fewer layers"
    parser.add_argument("--init-from", type=Path, help=start)
    share = "of --init-from in the mean of its weights and those learnt, which --out gets; 0 to 1"
    parser.add_argument("--init-share", type=float, default=0.0, help=share)
    parser.add_argument("--out", type=Path, required=True, help="folder that gets the model and its tokenizer")
    parser.add_argument("--dev", type=Path, help="manifest whose perplexity is printed")
    parser.add_argument("--dev-corpus", default="", metavar="PREFIX", help="only corpora of --dev that begin so")
    told = {"d_model": "width", "n_heads": "heads of attention", "ffn_dim": "feed-forward width", "layers": "blocks"}
    for name, what in told.items():
        default = getattr(NeuralLMConfig(), name)
        option, text = f"--{name.replace('_', '-')}", f"{what}; default: {default}"
        parser.add_argument(option, type=int, default=default, help=text)
    parser.add_argument("--steps", type=positive, default=7500, help="updates; default: 7500")
    parser.add_argument("--batch-tokens", type=positive, default=5120, help="padded tokens a batch; default: 5120")
    parser.add_argument("--lr", type=float, default=3e-3, help="highest learning rate; default: 0.003")
    parser.add_argument("--seed", type=int, default=1, help="of first weights and order; default: 1")
    add_device_option(parser)
    return parser


def main() -> None:
    parser = _parser()
    arguments = parser.parse_args()
    if not (arguments.text or arguments.manifest):
        parser.error("name a --text or a --manifest")
    if not 0.0 <= arguments.init_share <= 1.0:  # NaN is neither
        parser.error(f"argument --init-share: must be 0 to 1, not {arguments.init_share}")
    if arguments.init_share and not arguments.init_from:
        parser.error("--init-share is a share of --init-from: name one")
    with told_in_one_line("neural_lm"):
        _train(arguments)


def _train(arguments: argparse.Namespace) -> None:
    pieces = WordPieces.load(arguments.tokenizer)
    check_transcripts(pieces, arguments.tokenizer)
    config = NeuralLMConfig(
        pieces.vocab_size, arguments.d_model, arguments.n_heads, arguments.ffn_dim, arguments.layers
    )
    optim = OptimConfig(
        lr=arguments.lr,
        weight_decay=0.05,
        warmup_steps=100,
        max_steps=arguments.steps,
        decay_fraction=0.7,
        clip_norm=1.0,
    )
    dev = dev_sentences(arguments)
    text = tokenised(chosen_sentences(arguments), pieces)
    print(f"{len(text.tokens):,} tokens of {len(text.word_starts) - 1:,} words", flush=True)
    device = use_device(arguments.device)
    run = Run(
        text, config, optim, arguments.run, seed=arguments.seed, batch_tokens=arguments.batch_tokens, device=device
    )
    resumed = run.resume()
    before: dict[str, Tensor] = {}
    if arguments.init_from and (arguments.init_share or not resumed):  # before hours of training: it may be refused
        before = run.weights_of(arguments.init_from, pieces)
    if resumed:
        unread = "; its weights are the checkpoint's, not --init-from's" if arguments.init_from else ""
        print(f"resumed at step {run.step}{unread}", flush=True)
    elif arguments.init_from:
        run.move_to(before)
    run.train()
    if arguments.init_share:
        run.move_to(before, arguments.init_share)
    save_neural_lm(arguments.out, run.model, pieces)
    if dev:
        print(f"dev perplexity {perplexity(run.model, pieces, dev):.1f} a word, unknown words included")


if __name__ == "__main__":
    main()
