"""SpecAugment masks what it may."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from training.augmentation.spec_augment import spec_augment
from training.recipe import AugmentConfig


def masked(lengths: list[int], config: AugmentConfig, seed: int = 0) -> torch.Tensor:
    """(B, T, F), True where the mask lies."""
    features = torch.ones(len(lengths), max(lengths), 80)
    return spec_augment(features, torch.tensor(lengths), config, torch.Generator().manual_seed(seed)) == 0


@given(seed=st.integers(0, 200))
def test_time_masks_lie_inside_each_rows_own_length_and_are_no_wider_than_asked(seed: int) -> None:
    config = AugmentConfig(freq_masks=0, time_masks=3, time_fraction=0.1)
    lengths = [400, 90, 10]
    mask = masked(lengths, config, seed)
    for row, length in zip(mask, lengths, strict=True):
        frames = row.any(dim=1)
        assert torch.equal(frames, row.all(dim=1))
        assert not frames[length:].any()
        assert frames.sum() <= 3 * (0.1 * length + 1)


@given(seed=st.integers(0, 200))
def test_frequency_masks_cover_bands_of_all_frames_and_are_no_wider_than_asked(seed: int) -> None:
    mask = masked([50, 40], AugmentConfig(freq_masks=2, freq_width=18, time_masks=0), seed)
    for row in mask:
        bins = row.any(dim=0)
        assert torch.equal(bins, row.all(dim=0))
        assert bins.sum() <= 2 * 19


def test_rows_of_a_batch_are_masked_differently_and_equal_seeds_alike() -> None:
    first, again, other = (masked([300, 300], AugmentConfig(), seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert first.any()


def test_what_is_not_masked_is_left_as_it_was() -> None:
    features = torch.randn(2, 100, 80)
    out = spec_augment(features, torch.tensor([100, 60]), AugmentConfig(), torch.Generator().manual_seed(0))
    assert torch.equal(out[out != 0], features[out != 0])
