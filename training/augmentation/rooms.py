"""Simulated rooms: a bank of impulse responses, and convolution with them. Dimensions: B batch, N samples, K taps.

Image-source method (Allen & Berkley 1979) by pyroomacoustics (Scheibler, Bezzam, Dokmanić 2018), in random shoebox
rooms as in Ko et al., "A study on data augmentation of reverberant speech for robust speech recognition", 2017.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.augmentation.fourier import fast_length

SIZE_M = ((3.0, 9.0), (2.5, 7.0), (2.4, 3.5))
DECAY_S = (0.1, 0.6)  # RT60
DISTANCE_M = (0.3, 4.0)
FROM_WALL_M = 0.2
# Reflections beyond these are far below what the decay has left, and cost most of the time.
MAX_ORDER = 25
TAPS_S = 0.5


def impulse_response(rng: random.Random, sample_rate_hz: int) -> NDArray[np.float32]:
    """(K,) of a random room with random places in it; unit energy, the direct sound in tap 0, nothing before it."""
    import pyroomacoustics  # type: ignore[import-untyped]  # seconds, and needed only to make the bank

    size = [rng.uniform(*extent) for extent in SIZE_M]
    wanted_s = rng.uniform(*DECAY_S)
    try:
        absorption, order = pyroomacoustics.inverse_sabine(wanted_s, size)
    except ValueError:  # so large and dry that the walls would have to absorb more than all
        absorption, order = 0.99, 3
    metres = pyroomacoustics.constants.get("c") / sample_rate_hz
    while True:
        microphone = [rng.uniform(FROM_WALL_M, extent - FROM_WALL_M) for extent in size]
        # A whole number of samples away, so that the direct sound is one tap and not a band-limited pulse around one.
        steps = round(rng.uniform(*DISTANCE_M) / metres)
        bearing, height = rng.uniform(0, 2 * math.pi), rng.uniform(-0.5, 0.5)
        way = (math.cos(bearing) * math.cos(height), math.sin(bearing) * math.cos(height), math.sin(height))
        source = [at + steps * metres * part for at, part in zip(microphone, way, strict=True)]
        if all(FROM_WALL_M <= at <= extent - FROM_WALL_M for at, extent in zip(source, size, strict=True)):
            break
    room = pyroomacoustics.ShoeBox(
        size, fs=sample_rate_hz, materials=pyroomacoustics.Material(absorption), max_order=min(order, MAX_ORDER)
    )
    room.add_source(source)
    room.add_microphone(microphone)
    room.compute_rir()
    delay = steps + pyroomacoustics.constants.get("frac_delay_length") // 2
    taps = np.zeros(int(TAPS_S * sample_rate_hz), dtype=np.float32)
    heard = np.asarray(room.rir[0][0], dtype=np.float32)[delay : delay + len(taps)]
    taps[: len(heard)] = heard
    taps /= np.sqrt(np.square(taps).sum())
    return taps


def room_bank(folder: Path, rooms: int, sample_rate_hz: int, seed: int = 0) -> Tensor:
    """(rooms, K) impulse responses, a function of the arguments; computed once and then read from `folder`."""
    settings = repr((SIZE_M, DECAY_S, DISTANCE_M, FROM_WALL_M, MAX_ORDER, TAPS_S, rooms, sample_rate_hz, seed))
    path = folder / f"rooms-{hashlib.sha256(settings.encode()).hexdigest()[:12]}.npy"
    if not path.exists():
        rng = random.Random(seed)
        bank = np.stack([impulse_response(rng, sample_rate_hz) for _ in range(rooms)])
        partial = path.with_suffix(f".{os.getpid()}.npy")
        np.save(partial, bank)
        partial.rename(path)  # several processes may do this at once, each with the same result
    return torch.from_numpy(np.load(path))


def reverberate(waves: Tensor, responses: Tensor) -> Tensor:
    """Each of the (B, N) rows as heard in its room, (B, K): (B, N), aligned with the input and as loud as it."""
    samples = waves.shape[1]
    length = fast_length(samples + responses.shape[1] - 1)
    spectrum = torch.fft.rfft(waves, n=length) * torch.fft.rfft(responses, n=length)
    heard: Tensor = torch.fft.irfft(spectrum, n=length)[:, :samples]
    energy = heard.square().sum(dim=1, keepdim=True).clamp(min=1e-12)
    return heard * torch.sqrt(waves.square().sum(dim=1, keepdim=True) / energy)
