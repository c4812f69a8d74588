"""Frame-level voice activity from the front end's energies, against a noise floor that follows the room.

Dimensions: T feature frames (10 ms).

The energy of a frame is the mean of its log-mel bins below 4 kHz (nepers of power). The floor falls with the quietest
frames at once and rises slowly, as in minimum statistics (Martin 2001); speech is what stands out from it. A model
would hear better, and would have to run before it is known whether there is anything to hear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class VoiceActivityConfig:
    """Energies are natural logarithms of power: 1 is 4.3 dB.

    Attributes:
        margin: how far above the floor speech must be.
        initial_floor: floor at the start of a stream, before the room is known.
        lowest_floor: the floor never falls below this, so that digital silence does not make whispers of dither loud.
        rise_per_s: how fast the floor follows a room that becomes louder.
        begin_frames: speech frames among a stretch's `TICK_FRAMES` that make it speech.
    """

    margin: float = 1.3
    initial_floor: float = -13.0
    lowest_floor: float = -14.0
    rise_per_s: float = 0.25
    begin_frames: int = 3


class VoiceActivity:
    """The state of one stream."""

    def __init__(self, config: VoiceActivityConfig = VoiceActivityConfig()) -> None:
        self._config = config
        self._floor = config.initial_floor

    def observe(self, energies: NDArray[np.float32]) -> bool:
        """Energies of the next stretch, (T,) → does somebody speak in it?"""
        config = self._config
        speech = 0
        for energy in energies.tolist():
            self._floor = max(config.lowest_floor, min(self._floor + config.rise_per_s * 0.01, energy))
            speech += energy > self._floor + config.margin
        return speech >= config.begin_frames
