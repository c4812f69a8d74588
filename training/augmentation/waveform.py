"""The distortions of a batch of waveforms, in the order in which they happen to real speech.

The room and the noise in it, then the microphone's level, then the line and the codec. Dimensions: B batch, N samples.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training.augmentation.codec import CODECS, coded
from training.augmentation.device import on_device
from training.augmentation.noise import add_noise, babble, coloured_noise
from training.augmentation.rooms import reverberate
from training.augmentation.telephone import HIGH_HZ, LAWS, LOW_HZ, telephone
from training.recipe import AugmentConfig

Voices = Callable[[random.Random, str, int], Sequence[Tensor]]
"""Recordings (n,) of that many others than the speaker named; fewer, or none, where there are no others."""


class WaveformAugmentation:
    """Draws what happens to each row on the host, and does it where the waveforms are."""

    def __init__(self, config: AugmentConfig, voices: Voices, rooms: Tensor | None, sample_rate_hz: int) -> None:
        """`rooms`: impulse responses (rooms, K) where the waveforms will be; needed for a `room_probability`."""
        self.config = config
        self._rooms = rooms
        self._voices = voices
        self._rate_hz = sample_rate_hz

    def __call__(self, waves: Tensor, lengths: Tensor, speakers: Sequence[str], rng: random.Random) -> Tensor:
        """(B, N) zero-padded rows and their (B,) lengths → (B, N); rows keep their lengths and alignment."""
        config = self.config
        rows = range(len(waves))
        reverberant = [row for row in rows if rng.random() < config.room_probability]
        if reverberant and self._rooms is not None:
            at = on_device(torch.tensor(reverberant), waves.device)
            rooms = torch.tensor([rng.randrange(len(self._rooms)) for _ in reverberant])
            responses = self._rooms[on_device(rooms, waves.device)]
            waves = waves.index_copy(0, at, reverberate(waves[at], responses))
        noisy = [row for row in rows if rng.random() < config.noise_probability]
        if noisy:
            at = on_device(torch.tensor(noisy), waves.device)
            snr_db = on_device(torch.tensor([rng.uniform(*config.noise_snr_db) for _ in noisy]), waves.device)
            noise = self._noise([speakers[row] for row in noisy], waves.shape[1], waves.device, rng)
            waves = waves.index_copy(0, at, add_noise(waves[at], lengths[at], noise, snr_db))
        gains_db = [rng.uniform(*config.gain_db) if rng.random() < config.gain_probability else 0.0 for _ in rows]
        if any(gains_db):
            waves = _amplify(waves, on_device(torch.tensor(gains_db), waves.device))
        lines: dict[str | None, list[int]] = {}
        for row in rows:
            if rng.random() < config.telephone_probability:
                lines.setdefault(rng.choice([*sorted(LAWS), None]), []).append(row)
        for law, chosen in lines.items():
            at = on_device(torch.tensor(chosen), waves.device)
            # Half of the lines let through what is low: today's do.
            low_hz = on_device(torch.tensor([rng.choice((0.0, rng.uniform(*LOW_HZ))) for _ in chosen]), waves.device)
            high_hz = on_device(torch.tensor([rng.uniform(*HIGH_HZ) for _ in chosen]), waves.device)
            waves = waves.index_copy(0, at, telephone(waves[at], low_hz, high_hz, law))
        if config.codec_probability:  # without it nothing is drawn: a recipe without codecs draws what it always did
            waves = self._coded(waves, lengths, rng)
        return waves.masked_fill(torch.arange(waves.shape[1], device=waves.device) >= lengths.unsqueeze(1), 0.0)

    def _coded(self, waves: Tensor, lengths: Tensor, rng: random.Random) -> Tensor:
        """(B, N) rows, some of them as after a codec. Done on the CPU, wherever the waveforms are."""
        waves = waves.clone()
        for row, length in enumerate(lengths.tolist()):
            if rng.random() < self.config.codec_probability:
                name, strength = rng.choice(sorted(CODECS)), rng.random()
                heard = coded(waves[row, :length].cpu().numpy(), name, strength)
                waves[row, :length] = torch.from_numpy(heard).to(waves.device)
        return waves

    def _noise(self, speakers: Sequence[str], samples: int, device: torch.device, rng: random.Random) -> Tensor:
        """One row of noise a speaker, (B, N), of no particular level."""
        generator = torch.Generator(device).manual_seed(rng.getrandbits(63))
        slopes = [rng.uniform(*self.config.noise_slope) for _ in speakers]
        noise = coloured_noise(slopes, samples, self._rate_hz, generator, device)
        for row, speaker in enumerate(speakers):
            if rng.random() < self.config.babble_share:
                voices = self._voices(rng, speaker, rng.randint(*self.config.babble_voices))
                if voices:
                    noise[row] = babble(voices, samples, rng)
        return noise


def _amplify(waves: Tensor, gains_db: Tensor) -> Tensor:
    """Change each row's level, upwards only as far as full scale allows."""
    gain = 10.0 ** (gains_db / 20.0)
    full_scale = 1.0 / waves.abs().amax(dim=1).clamp(min=1e-4)
    return waves * torch.minimum(gain, full_scale.clamp(min=1.0)).unsqueeze(1)
