"""Log-mel front end: the same numbers for a whole waveform and for any chunking of it.

Dimensions: B batch, N samples, T feature frames (10 ms), F mel bins.

Frames are uncentred: frame t covers samples [t·hop, t·hop + n_fft), so no frame looks at padding and a stream needs
only the samples that its next frame shares with its last one. Normalisation is by the global mean and standard
deviation of the training data (CMVN), stored in the bundle: a maximum or mean of the utterance would look ahead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asr_service.torchaudio_guard import torchaudio
from asr_service.types import SAMPLE_RATE_HZ

# Frames that a stream computes at once: 80 ms.
STEP_FRAMES = 8


@dataclass(frozen=True, slots=True)
class FeatureConfig:
    """Geometry of the front end; it travels with the model, for the model is tied to it."""

    sample_rate_hz: int = SAMPLE_RATE_HZ
    n_fft: int = 512
    win_length: int = 400
    hop_length: int = 160
    n_mels: int = 80
    # Power below this is inaudible coding noise; without a floor its logarithm would dominate the variance.
    floor: float = 1e-7


class LogMel(nn.Module):
    """Waveform → normalised log-mel spectrogram (Slaney filters, as librosa's default)."""

    def __init__(self, config: FeatureConfig = FeatureConfig()) -> None:
        super().__init__()
        self.config = config
        self.spectrogram = torchaudio.transforms.MelSpectrogram(
            sample_rate=config.sample_rate_hz,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            n_mels=config.n_mels,
            center=False,
            power=2.0,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("mean", torch.zeros(config.n_mels))
        self.register_buffer("std", torch.ones(config.n_mels))
        self.mean: Tensor
        self.std: Tensor

    def frames(self, samples: int) -> int:
        """Number of frames that `samples` samples give: only frames that are wholly covered."""
        return max(0, (samples - self.config.n_fft) // self.config.hop_length + 1)

    def whole(self, waveform: Tensor) -> Tensor:
        """(B, N) or (N,) samples in [-1, 1] → (B, T, F) or (T, F), T = `frames(N)`."""
        if waveform.shape[-1] < self.config.n_fft:
            return waveform.new_zeros(*waveform.shape[:-1], 0, self.config.n_mels)
        mel = self.spectrogram(waveform).transpose(-1, -2)
        return (torch.log(mel + self.config.floor) - self.mean) / self.std

    def silence(self, frames: int) -> Tensor:
        """Features of digital silence, (frames, F)."""
        return ((math.log(self.config.floor) - self.mean) / self.std).repeat(frames, 1)

    def step(self, pcm: Tensor, carry: Tensor | None, *, last: bool = False) -> tuple[Tensor, Tensor]:
        """One chunk of a stream: (N,) new samples and the carry of the step before → ((T, F), new carry).

        Frames are computed `STEP_FRAMES` at a time, so that each product has the same shape however the samples
        arrived, and with it the same rounding: all splits of a stream agree to the last bit. T is a multiple of
        `STEP_FRAMES` but for the `last` call, which gives the frames that are left. The carry holds the samples, fewer
        than n_fft + STEP_FRAMES · hop, that later frames still need; None starts a stream.
        """
        samples = pcm if carry is None else torch.cat([carry, pcm])
        stride = STEP_FRAMES * self.config.hop_length
        span = stride - self.config.hop_length + self.config.n_fft
        steps = self.frames(len(samples)) // STEP_FRAMES
        # Copies, for a product's rounding may depend on how its operand is aligned.
        blocks = [self.whole(samples[i * stride : i * stride + span].clone()) for i in range(steps)]
        samples = samples[steps * stride :]
        if last:
            blocks.append(self.whole(samples.clone()))
            samples = samples[:0]
        return torch.cat(blocks) if blocks else samples.new_zeros(0, self.config.n_mels), samples
