"""From manifest to batches: targets made once, features made as they are needed."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asr_service.features import LogMel
from asr_service.lexicon import Lexicon, phone_ids
from asr_service.tokenizer import WordPieces
from training.augmentation.spec_augment import spec_augment
from training.augmentation.speed import change_speed
from training.augmentation.waveform import WaveformAugmentation
from training.data import SAMPLE_RATE_HZ, PcmStore, Utterance
from training.lexicon import phones_of
from training.loss import Batch
from training.recipe import AugmentConfig


@dataclass(frozen=True, slots=True)
class Example:
    """An utterance ready for training: its place in the store, its targets, and who speaks."""

    index: int
    duration_s: float
    tokens: tuple[int, ...]
    phones: tuple[int, ...]
    speaker: str = ""


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
        examples.append(Example(index, utterance.duration_s, tokens, phones, utterance.speaker))
    return examples, counts


def cmvn(store: PcmStore, front_end: LogMel, *, sample: int = 800, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each mel bin, (F,) each, over a sample of utterances.

    A deviation is at least 1 neper: above the band of telephone recordings nothing varies, and what another decoder
    leaves there must not become a feature of 70 standard deviations.
    """
    rng = random.Random(seed)
    chosen = rng.sample(range(len(store)), min(sample, len(store)))
    frames = torch.cat([front_end.whole(torch.from_numpy(store[i].astype(np.float32) / 32768.0)) for i in chosen])
    return frames.mean(dim=0), frames.std(dim=0).clamp(min=1.0)


def pad_targets(rows: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token sequences → (B, U) padded with 0, and (B,) lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.zeros(len(rows), max(1, int(lengths.max())), dtype=torch.long)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = torch.tensor(row)
    return padded, lengths


class BatchMaker:
    """Makes batches on a device: there the samples lie, and there they are augmented and turned into features.

    A batch is a function of its examples and its seed alone.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        store: PcmStore,
        front_end: LogMel,
        augment: AugmentConfig,
        device: torch.device,
    ) -> None:
        self.examples, self.augment, self.device = examples, augment, device
        self._store = store
        self._samples = store.samples(device)
        self._front_end = copy.deepcopy(front_end).to(device)
        self._distort = WaveformAugmentation(augment, self._voices, SAMPLE_RATE_HZ)

    def __reduce__(self) -> tuple[type[BatchMaker], tuple[object, ...]]:
        """Another process opens the samples itself: they would be copied otherwise."""
        return BatchMaker, (self.examples, self._store, self._front_end, self.augment, self.device)

    def __call__(self, indices: Sequence[int], seed: str = "", *, augmented: bool = True) -> Batch:
        """Read, change speed, pad, distort, compute features, mask; `seed` makes the draws. `indices` of `examples`."""
        rng = random.Random(seed)
        chosen = [self.examples[i] for i in indices]
        waves = [self._wave(example) for example in chosen]
        if augmented:
            waves = [change_speed(wave, rng.choice(self.augment.speeds)) for wave in waves]
        samples = torch.tensor([len(wave) for wave in waves], device=self.device)
        padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
        if augmented:
            padded = self._distort(padded, samples, [example.speaker for example in chosen], rng)
        lengths = torch.tensor([self._front_end.frames(len(wave)) for wave in waves])
        features = self._front_end.whole(padded)[:, : int(lengths.max())]
        if augmented:
            generator = torch.Generator().manual_seed(rng.getrandbits(63))
            features = spec_augment(features, lengths, self.augment, generator)
        tokens, token_lengths = pad_targets([example.tokens for example in chosen])
        phones, phone_lengths = pad_targets([example.phones for example in chosen])
        seconds = sum(map(len, waves)) / SAMPLE_RATE_HZ
        return Batch(features, lengths, tokens, token_lengths, phones, phone_lengths, seconds)

    def _wave(self, example: Example) -> torch.Tensor:
        """(N,) float32 in [-1, 1]; raises ValueError that names the file of a recording without samples."""
        start, end = self._store.extent(example.index)
        if start == end:
            raise ValueError(f"{self._store.paths[example.index]}: no samples")
        return self._samples[start:end].float() / 32768.0

    def _voices(self, rng: random.Random, speaker: str, count: int) -> list[torch.Tensor]:
        """Recordings of up to `count` others than `speaker`, out of twice as many that are looked at."""
        looked_at = rng.choices(self.examples, k=2 * count)
        return [self._wave(example) for example in looked_at if example.speaker != speaker][:count]


def make_batch(
    examples: Sequence[Example],
    store: PcmStore,
    front_end: LogMel,
    *,
    augment: AugmentConfig | None = None,
    seed: str = "",
) -> Batch:
    """One batch of all the examples on the CPU, for those that need no second."""
    maker = BatchMaker(examples, store, front_end, augment or AugmentConfig(), torch.device("cpu"))
    return maker(range(len(examples)), seed, augmented=augment is not None)
