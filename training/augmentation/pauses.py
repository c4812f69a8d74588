"""Pauses between utterances: digital silence, or noise as loud as the room was. Dimensions: N samples."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from training.augmentation.noise import coloured_noise

FRAME_S = 0.025
# Level of a background alone, relative to full scale: from barely there to as loud as speech.
BACKGROUND_DB = (-70.0, -15.0)
# Share of the rows with pauses in which they are digital silence, as after a muted microphone or an edit.
DIGITAL_SHARE = 0.3


def background(
    samples: int, sample_rate_hz: int, slopes: tuple[float, float], rng: random.Random, device: torch.device
) -> Tensor:
    """(N,) coloured noise alone, of a random level: what a recogniser must learn to write nothing for."""
    generator = torch.Generator(device).manual_seed(rng.getrandbits(63))
    noise = coloured_noise([rng.uniform(*slopes)], samples, sample_rate_hz, generator, device)[0]
    level = 10.0 ** (rng.uniform(*BACKGROUND_DB) / 20.0)
    noise *= level / noise.square().mean().sqrt().clamp(min=1e-12)
    return noise


def room_tone_level(wave: Tensor, sample_rate_hz: int) -> Tensor:
    """Root mean square of the (N,) recording's quiet frames (the 5th percentile): (), zero for less than a frame."""
    frame = int(FRAME_S * sample_rate_hz)
    frames = wave[: len(wave) // frame * frame].view(-1, frame)
    if not len(frames):
        return wave.new_zeros(())
    level: Tensor = frames.square().mean(dim=1).kthvalue(1 + len(frames) // 20).values.sqrt()
    return level


def with_pauses(
    waves: Sequence[Tensor],
    pauses: Sequence[int],
    sample_rate_hz: int,
    slopes: tuple[float, float],
    rng: random.Random,
) -> Tensor:
    """The waves one after another, `pauses[i]` samples of pause before wave i and `pauses[-1]` after the last.

    `slopes`: range that the colour of the noise in the pauses is drawn from (see `coloured_noise`).
    """
    longest = max(pauses)
    if longest == 0:
        return torch.cat(tuple(waves))
    device = waves[0].device
    tone = torch.zeros(longest, device=device)
    slope, seed = rng.uniform(*slopes), rng.getrandbits(63)
    if rng.random() >= DIGITAL_SHARE:
        generator = torch.Generator(device).manual_seed(seed)
        noise = coloured_noise([slope], longest, sample_rate_hz, generator, device)[0]
        level = torch.stack([room_tone_level(wave, sample_rate_hz) for wave in waves]).amin()
        tone = noise * (level / noise.square().mean().sqrt().clamp(min=1e-12))
    pieces = [piece for pause, wave in zip(pauses, waves, strict=False) for piece in (tone[:pause], wave)]
    return torch.cat([*pieces, tone[: pauses[-1]]])
