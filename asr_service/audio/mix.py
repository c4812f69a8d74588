"""Several channels to one: their mean, or the loudest where they cancel each other.

Shapes: n samples per channel, C channels. Energies are sums of squares over a block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asr_service.audio.source import CHANNEL_FIELD
from asr_service.errors import InvalidField

Samples = NDArray[np.float32]

BLOCKS_PER_S = 10
"""Several channels are mixed in blocks of 100 ms, of which the last is held back until it is whole."""

SILENCE = 2.0**-30
"""Mean square of a block that says nothing about the channels: one step of 16 bits."""

MEMORY = 0.99
"""What the energies weigh one block later: a memory of 10 s in which loud blocks, speech, count more than pauses."""

CANCELS_BELOW, MIXES_ABOVE = 0.01, 0.04
"""Energy of the mean / mean energy of the channels. 1 for equal channels, 1 / C for unrelated ones or where only one is
not silent. Two limits, so that what lies near one does not go to and fro."""


class Mixer:
    """(n, C) float32 to mono, incrementally; the output depends on the samples, not on how they were split.

    A channel that is wired the wrong way round would leave nothing of the mean, so that every word is lost in silence.
    What to take is decided anew for each block, counted from the first sample: deciding once for good could leave out
    one of two speakers for an hour because of a hum before they began. It changes only when the energies of the last
    seconds say so, the block itself included, so that no first word is lost; a click there is as rare as that.

    Args:
        rate_hz: of the samples.
        channels: C.
        channel: the only one to take, counted from 0; None mixes. One channel, or the only one of several, is passed
            on at once.

    Raises:
        InvalidField: there is no such channel.
    """

    def __init__(self, rate_hz: int, channels: int, channel: int | None = None) -> None:
        if channel is not None and channel >= channels:
            # The API counts from 1, for 0 is its unset.
            count = "1 channel" if channels == 1 else f"{channels} channels"
            raise InvalidField(f"{CHANNEL_FIELD} is {channel + 1}, but the audio has {count}", field=CHANNEL_FIELD)
        self.channels = channels
        self._only = 0 if channels == 1 else channel
        self._block = rate_hz // BLOCKS_PER_S
        self._held = np.zeros((0, channels), dtype=np.float32)
        self._energies = np.zeros(channels)
        self._mixed_energy = 0.0
        self._instead: int | None = None  # the channel that is taken while they cancel

    def push(self, samples: Samples) -> Samples:
        """Shape (n, C) to (m,), maybe empty."""
        if self._only is not None:
            return samples[:, self._only].copy()
        held = np.concatenate([self._held, samples])
        whole = len(held) - len(held) % self._block
        self._held = held[whole:].copy()
        mono = [self._mix(held[start : start + self._block]) for start in range(0, whole, self._block)]
        return np.concatenate(mono) if mono else np.zeros(0, dtype=np.float32)

    def flush(self) -> Samples:
        """The rest, shape (m,); what is pushed after it begins a new block."""
        held, self._held = self._held, self._held[:0]
        return self._mix(held) if len(held) else np.zeros(0, dtype=np.float32)

    def _mix(self, block: Samples) -> Samples:
        mean = _mean(block)
        energies = np.array([_energy(block[:, k]) for k in range(self.channels)])
        if energies.mean() > SILENCE * len(block):
            self._energies = MEMORY * self._energies + energies
            self._mixed_energy = MEMORY * self._mixed_energy + _energy(mean)
            left = self._mixed_energy / self._energies.mean()
            if left > MIXES_ABOVE:
                self._instead = None
            elif left < CANCELS_BELOW and self._instead is None:
                self._instead = int(self._energies.argmax())
        return mean if self._instead is None else block[:, self._instead].copy()


def _mean(samples: Samples) -> Samples:
    """(n, C) to (n,): added channel by channel, so that the sum cannot depend on how many samples came at once."""
    mono = samples[:, 0].copy()
    for k in range(1, samples.shape[1]):
        mono += samples[:, k]
    mono /= np.float32(samples.shape[1])
    return mono


def _energy(samples: Samples) -> float:
    """Of shape (n,). The squares are a new array, so that the order of the sum cannot depend on the memory layout."""
    return float(np.square(samples, dtype=np.float64).sum())
