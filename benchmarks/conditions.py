"""A clip as it may reach a recogniser, and then two seconds in which nobody speaks. Dimensions: N samples at 16 kHz."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from training.augmentation.noise import coloured_noise
from training.augmentation.pauses import room_tone_level
from training.augmentation.telephone import telephone
from training.distort import SLOPES, noisy

RATE_HZ = 16_000
TAIL_S = 2.0
NOISES = ("white", "pink", "babble")
# By name: with room tone behind it, or digital silence; 30 dB quieter; by telephone; in noise at so many dB.
CONDITIONS = ("clean", "digital", "quiet", "telephone", *(f"{kind}{snr_db}" for kind in NOISES for snr_db in (20, 10)))
Wave = NDArray[np.float32]


def conditions(clip: Wave, voices: Sequence[Wave], names: Sequence[str], seed: str) -> Iterator[tuple[str, Wave]]:
    """The named conditions of `clip`, (N,), each (N + tail,), as a function of `seed`. `voices` make the babble."""
    tail = round(TAIL_S * RATE_HZ)
    generator = torch.Generator().manual_seed(random.Random(seed).getrandbits(63))
    tone = coloured_noise([SLOPES["pink"]], tail, RATE_HZ, generator, torch.device("cpu"))[0]
    tone *= room_tone_level(torch.from_numpy(clip), RATE_HZ) / tone.square().mean().sqrt()
    room = np.concatenate([clip, tone.numpy()])
    silent = np.concatenate([clip, np.zeros(tail, np.float32)])
    for name in names:
        if name in ("clean", "digital"):
            yield name, room if name == "clean" else silent
        elif name == "quiet":
            yield name, room * np.float32(10**-1.5)
        elif name == "telephone":
            band = torch.tensor([0.0]), torch.tensor([3900.0])
            yield name, telephone(torch.from_numpy(room).unsqueeze(0), *band, "mulaw")[0].numpy()
        else:
            kind = name.rstrip("0123456789")
            yield name, noisy(silent, kind, float(name[len(kind) :]), voices, seed)
