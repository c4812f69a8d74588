"""From manifest to batches: targets made once, features made as they are needed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asr_service.features import LogMel
from asr_service.lexicon import Lexicon, phone_ids
from asr_service.tokenizer import WordPieces
from training.augment import change_speed, spec_augment
from training.data import SAMPLE_RATE_HZ, PcmStore, Utterance
from training.lexicon import phones_of
from training.loss import Batch
from training.recipe import AugmentConfig


@dataclass(frozen=True, slots=True)
class Example:
    """An utterance ready for training: its place in the store, and its targets."""

    index: int
    duration_s: float
    tokens: tuple[int, ...]
    phones: tuple[int, ...]


def make_examples(
    utterances: Sequence[Utterance], pieces: WordPieces, lexicon: Lexicon | None, *, max_utterance_s: float
) -> tuple[list[Example], dict[str, int]]:
    """Targets for every usable utterance, and how many were left out, by reason.

    Only utterances that the word-piece CTC cannot align (more tokens than 80 ms frames) are kept all the same, and
    counted: the other losses still learn from them.
    """
    examples = []
    counts = {"empty text": 0, "too long": 0, "no pronunciation": 0, "kept, but too fast for word-piece CTC": 0}
    for index, utterance in enumerate(utterances):
        tokens = tuple(pieces.encode(utterance.text))
        if not tokens:
            counts["empty text"] += 1
            continue
        if utterance.duration_s > max_utterance_s:
            counts["too long"] += 1
            continue
        try:
            phones = tuple(phone_ids(phones_of(utterance.text, lexicon))) if lexicon is not None else ()
        except KeyError:
            counts["no pronunciation"] += 1
            continue
        repeats = sum(a == b for a, b in itertools.pairwise(tokens))
        if len(tokens) + repeats > utterance.duration_s / 0.08:
            counts["kept, but too fast for word-piece CTC"] += 1
        examples.append(Example(index, utterance.duration_s, tokens, phones))
    return examples, counts


def cmvn(store: PcmStore, front_end: LogMel, *, sample: int = 800, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each mel bin, (F,) each, over a sample of utterances."""
    rng = random.Random(seed)
    chosen = rng.sample(range(len(store)), min(sample, len(store)))
    frames = torch.cat([front_end.whole(torch.from_numpy(store[i].astype(np.float32) / 32768.0)) for i in chosen])
    return frames.mean(dim=0), frames.std(dim=0)


def pad_targets(rows: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token sequences → (B, U) padded with 0, and (B,) lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.zeros(len(rows), max(1, int(lengths.max())), dtype=torch.long)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = torch.tensor(row)
    return padded, lengths


def make_batch(
    examples: Sequence[Example],
    store: PcmStore,
    front_end: LogMel,
    *,
    augment: AugmentConfig | None = None,
    seed: str = "",
) -> Batch:
    """Read, change speed, pad, compute features, mask. A function of its arguments alone: `seed` makes the draws."""
    rng = random.Random(seed)
    waves = []
    for example in examples:
        pcm = store[example.index].astype(np.float32) / 32768.0
        waves.append(change_speed(pcm, rng.choice(augment.speeds)) if augment else pcm)
    lengths = torch.tensor([front_end.frames(len(wave)) for wave in waves])
    padded = np.zeros((len(waves), max(map(len, waves))), dtype=np.float32)
    for row, wave in zip(padded, waves, strict=True):
        row[: len(wave)] = wave
    features = front_end.whole(torch.from_numpy(padded))[:, : int(lengths.max())]
    if augment:
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        features = spec_augment(features, lengths, augment, generator)
    tokens, token_lengths = pad_targets([example.tokens for example in examples])
    phones, phone_lengths = pad_targets([example.phones for example in examples])
    seconds = sum(map(len, waves)) / SAMPLE_RATE_HZ
    return Batch(features, lengths, tokens, token_lengths, phones, phone_lengths, seconds)
