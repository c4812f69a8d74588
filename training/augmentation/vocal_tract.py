"""Vocal tract length perturbation (Jaitly and Hinton 2013): formants move as if somebody larger or smaller spoke.

Speed changes move them too, but pitch and tempo with them. Dimensions: B batch, T frames, F mel bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import librosa
import numpy as np
import torch
from torch import Tensor

from training.augmentation.device import on_device

# Formants lie below; what is above is stretched or squeezed so that the highest frequency stays where it is.
FORMANTS_BELOW_HZ = 4800.0


def warped(features: Tensor, factors: Sequence[float], sample_rate_hz: int) -> Tensor:
    """Features with each row's frequencies divided by its factor; (B, T, F) of Slaney mel bins, to half the rate.

    Meant for normalised features: the mean spectrum, which is the recording's more than the speaker's, stays.
    """
    if all(factor == 1.0 for factor in factors):
        return features
    bins, top_hz = features.shape[-1], sample_rate_hz / 2
    centres_hz = librosa.mel_frequencies(n_mels=bins + 2, fmin=0.0, fmax=top_hz)[1:-1]
    matrices = torch.eye(bins).repeat(len(factors), 1, 1)
    columns = torch.arange(bins)
    for matrix, factor in zip(matrices, factors, strict=True):
        if factor == 1.0:
            continue
        matrix.zero_()
        edge_hz = FORMANTS_BELOW_HZ * min(factor, 1.0)
        source_hz = np.interp(centres_hz, [0.0, edge_hz / factor, top_hz], [0.0, edge_hz, top_hz])
        position = torch.from_numpy(np.interp(source_hz, centres_hz, np.arange(bins)))
        low = position.floor().long().clamp(max=bins - 2)
        share = (position - low).float()
        matrix[low, columns] = 1.0 - share
        matrix[low + 1, columns] = share
    return torch.bmm(features, on_device(matrices, features.device))
