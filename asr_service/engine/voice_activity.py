"""Frame-level voice activity from the front end's log-mel bands, one decision a tick.

Two detectors, both a function of the stream's audio alone:

- `NeuralVoiceActivity`: a small recurrent network that hears what speech sounds like in noise, in a room that changes
  and through a telephone. Its weights come with a bundle (training/voice_activity.py makes them).
- `VoiceActivity`, for bundles without: what stands out from a noise floor that follows the room.

Dimensions: T feature frames (10 ms), F mel bins, K = `BANDS`, H units. A tick is `TICK_FRAMES` frames.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from asr_service.engine.frames import TICK_FRAMES
from asr_service.errors import BundleError, ConfigError

VOICE_FILE = "voice_activity.safetensors"
BANDS = 16
# Bands end here: telephone recordings have nothing above, and its absence must not pass for silence.
TELEPHONE_BAND_HZ = 4000
# The network hears each tick as two halves of 40 ms.
HALVES = 2
INPUTS = HALVES * BANDS
# Levels are natural logarithms of power. Below this there is coding noise; the scale is that of speech.
LOWEST, CENTRE, SPREAD = -15.5, -9.0, 3.0
# Logit above which somebody speaks.
THRESHOLD = -1.5


class VoiceBands:
    """Mel bins below 4 kHz, averaged in `BANDS` neighbouring groups."""

    def __init__(self, filters: NDArray[np.float32], sample_rate_hz: int) -> None:
        """`filters`: of the front end, (bins of the FFT, F). Raises ConfigError where too few are below 4 kHz."""
        above = TELEPHONE_BAND_HZ * 2 * (len(filters) - 1) // sample_rate_hz + 1
        below = np.flatnonzero(filters[above:].sum(axis=0) == 0)
        if len(below) < BANDS:
            found = f"n_mels is {filters.shape[1]}: {len(below)} mel bins below 4 kHz"
            raise ConfigError(f"{found}, voice activity needs {BANDS} or more")
        self._pool = np.zeros((filters.shape[1], BANDS), dtype=np.float32)
        for band, bins in enumerate(np.array_split(below, BANDS)):
            self._pool[bins, band] = 1 / len(bins)

    def __call__(self, log_mel: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log-mel features before normalisation, (T, F) → levels (T, K)."""
        return log_mel @ self._pool


class VoiceDetector(Protocol):
    """The state of one stream."""

    def observe(self, levels: NDArray[np.float32]) -> bool:
        """Levels of the next tick, (`TICK_FRAMES`, K) → does somebody speak in it?"""
        ...


@dataclass(frozen=True, slots=True)
class VoiceActivityConfig:
    """Levels are natural logarithms of power: 1 is 4.3 dB.

    Attributes:
        margin: how far above the floor the mean of the bands must be in speech.
        initial_floor: highest floor of the first `window_ticks` of a stream, before the room is known.
        lowest_floor: the floor never falls below this, so that digital silence does not make whispers of dither loud.
        window_ticks: the floor is the quietest frame of so many ticks (minimum statistics, Martin 2001): it follows a
            room that becomes louder after that time.
        begin_frames: speech frames of a tick that make it speech.
    """

    margin: float = 1.3
    initial_floor: float = -13.0
    lowest_floor: float = LOWEST
    window_ticks: int = 50
    begin_frames: int = 3


class VoiceActivity:
    """Speech is what stands out from the room. Levels may also be one energy a frame, (T,)."""

    def __init__(self, config: VoiceActivityConfig = VoiceActivityConfig()) -> None:
        self._config = config
        self._quietest: deque[float] = deque([config.initial_floor], maxlen=config.window_ticks)

    def observe(self, levels: NDArray[np.float32]) -> bool:
        config = self._config
        energies = levels.reshape(len(levels), -1).mean(axis=1)
        self._quietest.append(float(energies.min()))
        floor = max(config.lowest_floor, min(self._quietest))
        return int((energies > floor + config.margin).sum()) >= config.begin_frames


def tick_inputs(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Levels of whole ticks, (T, K), → the network's inputs, (T / `TICK_FRAMES`, `INPUTS`)."""
    halves = levels.reshape(-1, TICK_FRAMES // HALVES, BANDS).mean(axis=1)
    scaled: NDArray[np.float32] = (np.maximum(halves, LOWEST) - CENTRE) / SPREAD
    return scaled.reshape(-1, INPUTS)


@dataclass(frozen=True, slots=True)
class VoiceNetwork:
    """Weights of a layer of gated recurrent units (Cho et al. 2014; gates in PyTorch's order: reset, update, new) and
    of a logistic output. Streams share it.

    Attributes:
        from_input, from_state: (3 H, `INPUTS`) and (3 H, H).
        input_bias, state_bias: (3 H,).
        to_output, output_bias: (H,) and ().
    """

    from_input: NDArray[np.float32]
    from_state: NDArray[np.float32]
    input_bias: NDArray[np.float32]
    state_bias: NDArray[np.float32]
    to_output: NDArray[np.float32]
    output_bias: float

    @classmethod
    def load(cls, path: Path) -> VoiceNetwork:
        """Read what training/voice_activity.py wrote. Raises BundleError."""
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise BundleError(f"{path}: not a safetensors file: {error}") from error
        units = tensors["output.weight"].size if "output.weight" in tensors else 0
        shapes: dict[str, tuple[int, ...]] = {
            "cell.weight_ih_l0": (3 * units, INPUTS),
            "cell.weight_hh_l0": (3 * units, units),
            "cell.bias_ih_l0": (3 * units,),
            "cell.bias_hh_l0": (3 * units,),
            "output.weight": (1, units),
            "output.bias": (1,),
        }
        if set(tensors) != set(shapes):
            raise BundleError(f"{path}: the weights of voice activity are others: {', '.join(sorted(tensors))}")
        for name, tensor in tensors.items():
            if tensor.shape != shapes[name] or not np.isfinite(tensor).all():
                raise BundleError(f"{path}: {name} must be finite and of shape {shapes[name]}, is {tensor.shape}")
        *layer, output, bias = (tensors[name].astype(np.float32) for name in shapes)
        return cls(layer[0], layer[1], layer[2], layer[3], output[0], float(bias[0]))

    def step(self, inputs: NDArray[np.float32], state: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
        """One tick: inputs (`INPUTS`,) and state (H,) → logit of speech, new state."""
        units = len(state)
        fed = self.from_input @ inputs + self.input_bias
        kept = self.from_state @ state + self.state_bias
        gates = 0.5 + 0.5 * np.tanh(0.5 * (fed[: 2 * units] + kept[: 2 * units]))  # the logistic, without overflow
        new = np.tanh(fed[2 * units :] + gates[:units] * kept[2 * units :])
        state = new + gates[units:] * (state - new)
        return float(self.to_output @ state) + self.output_bias, state


# Beside the network: whatever it sounds like, what does not stand out from the last four seconds is the room.
STEADY = VoiceActivityConfig(margin=0.7, lowest_floor=-np.inf)


class NeuralVoiceActivity:
    """The network's state for one stream. A steady noise is never speech for long, not even one it has not met."""

    def __init__(self, network: VoiceNetwork, *, threshold: float = THRESHOLD) -> None:
        """`threshold`: of the logit."""
        self._network, self._threshold = network, threshold
        self._room = VoiceActivity(STEADY)
        self._state = np.zeros(len(network.to_output), dtype=np.float32)

    def observe(self, levels: NDArray[np.float32]) -> bool:
        logit, self._state = self._network.step(tick_inputs(levels)[0], self._state)
        stands_out = self._room.observe(levels)
        return stands_out and logit > self._threshold


def voice_detectors(directory: Path) -> Callable[[], VoiceDetector]:
    """What makes the detectors of new streams, for the bundle in `directory`. Raises BundleError."""
    path = directory / VOICE_FILE
    if not path.is_file():
        return VoiceActivity
    return functools.partial(NeuralVoiceActivity, VoiceNetwork.load(path))
