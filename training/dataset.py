"""From manifest to batches: targets made once, features made as they are needed."""

from __future__ import annotations

import copy
import functools
import itertools
import random
from collections.abc import Sequence

import numpy as np
import torch

from asr_service.decoding.ctc_forward import padded_labels
from asr_service.evaluation.normalizer import dropped_characters
from asr_service.features import FeatureConfig, LogMel
from asr_service.lexicon import Lexicon, phone_ids
from asr_service.tokenizer import WordPieces
from training.augmentation.device import on_device
from training.augmentation.pauses import background, with_pauses
from training.augmentation.rooms import room_bank
from training.augmentation.rows import Row, draw_rows, plain_rows
from training.augmentation.spec_augment import spec_augment
from training.augmentation.speed import change_speed, changed_lengths
from training.augmentation.vocal_tract import warped
from training.augmentation.waveform import WaveformAugmentation
from training.data import SAMPLE_RATE_HZ, PcmStore, Utterance
from training.example import Example
from training.lexicon import phones_of
from training.loss import Batch
from training.recipe import AugmentConfig

__all__ = ["BatchMaker", "Example", "cmvn", "make_batch", "make_examples", "pad_targets"]

# Feature frames to one of `AugmentConfig.lead_frames`, 40 ms.
LEAD_RATIO = 4

# Shorter than any word, and at the fastest speed still a few frames.
MIN_UTTERANCE_S = 0.1
# So much of a manifest's duration, and this share of it, may be rounding or an encoder's delay.
MAX_ROUNDING_S = 0.1
MAX_ROUNDING = 0.01


def make_examples(
    utterances: Sequence[Utterance],
    pieces: WordPieces,
    lexicon: Lexicon | None,
    *,
    max_utterance_s: float,
    store: PcmStore | None = None,
    output_subsampling: int = 8,
) -> tuple[list[Example], dict[str, int]]:
    """Targets for every usable utterance, and how many were left out, by reason.

    Kept and counted are utterances that the word-piece CTC cannot align, for the other losses still learn from them:
    those with more tokens than frames, of `output_subsampling` feature frames each. So are those whose samples in the
    `store` last longer or shorter than the manifest says; they are as long as the samples.
    """
    examples = []
    skipped = store.skipped if store is not None else {}
    counts = {
        "no audio": len(skipped),
        "text not spelled out": 0,
        "empty text": 0,
        f"shorter than {MIN_UTTERANCE_S:g} s": 0,
        "too long": 0,
        "no pronunciation": 0,
        "kept, but too fast for word-piece CTC": 0,
        "kept, but not as long as the manifest says": 0,
    }
    frame_s = output_subsampling * FeatureConfig().hop_length / SAMPLE_RATE_HZ
    tokens_of = functools.cache(pieces.encode)  # no piece reaches from one word into the next
    for index, utterance in enumerate(utterances):
        if index in skipped:
            continue
        if dropped_characters(utterance.written):
            counts["text not spelled out"] += 1
            continue
        words = utterance.text.split()
        tokens = tuple(itertools.chain.from_iterable(map(tokens_of, words)))
        if not tokens:
            counts["empty text"] += 1
            continue
        duration_s = _duration_s(utterance, index, store)
        if duration_s < MIN_UTTERANCE_S:
            counts[f"shorter than {MIN_UTTERANCE_S:g} s"] += 1
            continue
        if duration_s > max_utterance_s:
            counts["too long"] += 1
            continue
        try:
            phones = tuple(phone_ids(phones_of(words, lexicon))) if lexicon is not None else ()
        except KeyError:
            counts["no pronunciation"] += 1
            continue
        repeats = sum(a == b for a, b in itertools.pairwise(tokens))
        if len(tokens) + repeats > duration_s / frame_s:
            counts["kept, but too fast for word-piece CTC"] += 1
        if duration_s != utterance.duration_s:
            counts["kept, but not as long as the manifest says"] += 1
        examples.append(Example(index, duration_s, tokens, phones, utterance.speaker))
    return examples, counts


def _duration_s(utterance: Utterance, index: int, store: PcmStore | None) -> float:
    """What the manifest says, if that is true but for rounding; else how long the samples last."""
    if store is None:
        return utterance.duration_s
    start, end = store.extent(index)
    measured_s = (end - start) / SAMPLE_RATE_HZ
    # The manifest's own where it may be: its rounding decides the order of batches in runs that others repeat.
    rounded = abs(measured_s - utterance.duration_s) <= MAX_ROUNDING_S + MAX_ROUNDING * measured_s
    return utterance.duration_s if rounded else measured_s


def cmvn(
    store: PcmStore, front_end: LogMel, indices: Sequence[int], *, sample: int = 800, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each mel bin, (F,) each, over a sample of those utterances of the store.

    A deviation is at least 2 nepers (speech has more): above the band of telephone recordings nothing varies, and what
    another decoder leaves there must not become a feature of 70 standard deviations. Raises ValueError for no index.
    """
    if not indices:
        raise ValueError("no utterance is left to learn from")
    rng = random.Random(seed)
    chosen = rng.sample(indices, min(sample, len(indices)))
    frames = torch.cat([front_end.whole(torch.from_numpy(store[i].astype(np.float32) / 32768.0)) for i in chosen])
    return frames.mean(dim=0), frames.std(dim=0).clamp(min=2.0)


def pad_targets(rows: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token sequences → (B, U) padded with 0, and (B,) lengths."""
    targets, lengths = padded_labels(rows)
    return torch.from_numpy(targets), torch.from_numpy(lengths)


class BatchMaker:
    """Makes batches on a device: there samples are augmented and turned into features.

    There they also lie if it has room for all; else those of a batch are copied when it is made. A batch is a function
    of its examples and its seed alone.
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
        rooms = room_bank(store.folder, augment.rooms, SAMPLE_RATE_HZ).to(device) if augment.room_probability else None
        self._distort = WaveformAugmentation(augment, self._voices, rooms, SAMPLE_RATE_HZ)

    def __reduce__(self) -> tuple[type[BatchMaker], tuple[object, ...]]:
        """Another process opens the samples itself: they would be copied otherwise."""
        return BatchMaker, (self.examples, self._store, self._front_end, self.augment, self.device)

    def __call__(self, indices: Sequence[int], seed: str = "", *, augmented: bool = True) -> Batch:
        """The batch of some of the `examples`; `seed` makes the draws, when it is to be `augmented`."""
        rng = random.Random(seed)
        rows = draw_rows(indices, self.examples, self.augment, rng) if augmented else plain_rows(indices)
        silent = [augmented and rng.random() < self.augment.silence_probability for _ in rows]
        waves = [self._row_wave(row, rng) for row in rows]
        waves = [self._background(wave, rng) if empty else wave for wave, empty in zip(waves, silent, strict=True)]
        samples = [len(wave) for wave in waves]
        padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
        views = self.augment.views if augmented else 1
        if augmented:
            padded, samples = self._at_a_speed(padded, samples, rng.choice(self.augment.speeds))
        seconds = sum(samples) / SAMPLE_RATE_HZ
        if views > 1:
            rows, silent, samples, padded = rows * views, silent * views, samples * views, padded.repeat(views, 1)
        if augmented:
            ends = on_device(torch.tensor(samples), self.device)
            padded = self._distort(padded, ends, [self.examples[row.parts[0]].speaker for row in rows], rng)
        frames = [self._front_end.frames(length) for length in samples]
        lengths = torch.tensor(frames)
        features = self._front_end.whole(padded)[:, : max(frames)]
        if augmented:
            generator = torch.Generator().manual_seed(rng.getrandbits(63))
            features = warped(features, [self._tract(rng) for _ in rows], SAMPLE_RATE_HZ)
            features = spec_augment(features, lengths, self.augment, generator)
        if lead := self.augment.lead_frames * LEAD_RATIO:
            silence = self._front_end.silence(lead).expand(len(features), -1, -1)
            features, lengths = torch.cat([silence, features], dim=1), lengths + lead
        chosen = [
            [] if empty else [self.examples[i] for i in row.parts] for row, empty in zip(rows, silent, strict=True)
        ]
        tokens, token_lengths = pad_targets([sum((part.tokens for part in parts), ()) for parts in chosen])
        phones, phone_lengths = pad_targets([sum((part.phones for part in parts), ()) for parts in chosen])
        return Batch(features, lengths, tokens, token_lengths, phones, phone_lengths, seconds, views)

    def _at_a_speed(self, padded: torch.Tensor, lengths: list[int], speed: float) -> tuple[torch.Tensor, list[int]]:
        """Zero-padded rows played `speed` times as fast, all at once, and their lengths then."""
        changed, lengths = change_speed(padded, speed), changed_lengths(lengths, speed)
        # The filter rings on past a row's end.
        ends = on_device(torch.tensor(lengths), self.device).unsqueeze(1)
        return changed.masked_fill(torch.arange(changed.shape[1], device=self.device) >= ends, 0.0), lengths

    def _tract(self, rng: random.Random) -> float:
        """Length of an utterance's vocal tract, as a share of its speaker's."""
        augment = self.augment
        return rng.uniform(*augment.warp) if rng.random() < augment.warp_probability else 1.0

    def _row_wave(self, row: Row, rng: random.Random) -> torch.Tensor:
        waves = [self._wave(self.examples[i]) for i in row.parts]
        pauses = [int(pause_s * SAMPLE_RATE_HZ) for pause_s in row.pauses_s]
        return with_pauses(waves, pauses, SAMPLE_RATE_HZ, self.augment.noise_slope, rng)

    def _background(self, wave: torch.Tensor, rng: random.Random) -> torch.Tensor:
        """Noise in place of a recording, as long as it."""
        return background(len(wave), SAMPLE_RATE_HZ, self.augment.noise_slope, rng, self.device)

    def _wave(self, example: Example) -> torch.Tensor:
        """(N,) float32 in [-1, 1]; raises ValueError that names the file of a recording without samples."""
        start, end = self._store.extent(example.index)
        if start == end:
            raise ValueError(f"{self._store.sources[example.index]}: no samples")
        return on_device(self._samples[start:end], self.device) / 32768.0

    def _voices(self, rng: random.Random, speaker: str, count: int) -> list[torch.Tensor]:
        """Recordings of up to `count` others than `speaker`, out of twice as many that are looked at."""
        looked_at = rng.choices(self.examples, k=2 * count)
        others = [example for example in looked_at if example.speaker != speaker]
        return [self._wave(example) for example in others[:count]]


def make_batch(
    examples: Sequence[Example],
    store: PcmStore,
    front_end: LogMel,
    *,
    augment: AugmentConfig | None = None,
    seed: str = "",
    lead_frames: int = 0,
) -> Batch:
    """One batch of all the examples on the CPU, for those that need no second.

    `lead_frames`: silence before each where there is nothing to `augment` by, whose own it is otherwise.
    """
    drawn = augment or AugmentConfig(lead_frames=lead_frames)
    maker = BatchMaker(examples, store, front_end, drawn, torch.device("cpu"))
    return maker(range(len(examples)), seed, augmented=augment is not None)
