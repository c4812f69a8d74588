"""Rooms: the direct sound stays where it was, and the bank is the same each time."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from training.augmentation.rooms import impulse_response, reverberate, room_bank

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    pytest.importorskip("pyroomacoustics")
    return room_bank(tmp_path_factory.mktemp("rooms"), 6, RATE_HZ)


def test_the_direct_sound_is_the_first_tap_and_the_energy_one(bank: torch.Tensor) -> None:
    for response in bank:
        assert int(response.abs().argmax()) == 0
        assert response[0] > 0
        assert float(response.square().sum()) == pytest.approx(1.0, abs=1e-4)


def test_rooms_differ_and_decay(bank: torch.Tensor) -> None:
    assert len(bank[:, 0].unique()) == len(bank)
    assert (bank[:, RATE_HZ // 4 :].square().sum(dim=1) < 0.1).all()


def test_a_bank_is_computed_once_and_is_a_function_of_its_seed(tmp_path: Path) -> None:
    pytest.importorskip("pyroomacoustics")
    first = room_bank(tmp_path, 2, RATE_HZ, seed=3)
    (path,) = tmp_path.iterdir()
    np.testing.assert_allclose(first[0], impulse_response(random.Random(3), RATE_HZ), atol=1e-6)
    np.save(path, 2 * first.numpy())
    assert torch.equal(room_bank(tmp_path, 2, RATE_HZ, seed=3), 2 * first)
    assert not torch.equal(room_bank(tmp_path, 2, RATE_HZ, seed=4), first)


def test_a_click_is_heard_when_it_was_made_and_not_before(bank: torch.Tensor) -> None:
    waves = torch.zeros(len(bank), 12_000)
    waves[:, 5_000] = 0.5
    heard = reverberate(waves, bank)
    assert heard.shape == waves.shape
    assert (heard.abs().argmax(dim=1) == 5_000).all()
    assert heard[:, :4_999].abs().max() < 1e-5
    torch.testing.assert_close(heard.square().sum(dim=1), waves.square().sum(dim=1))


def test_convolution_is_what_numpy_computes(bank: torch.Tensor) -> None:
    waves = torch.randn(1, 3_001, generator=torch.Generator().manual_seed(0))
    expected = np.convolve(waves[0].double().numpy(), bank[0].double().numpy())[:3_001]
    expected *= np.sqrt(float(waves.double().square().sum()) / np.square(expected).sum())
    np.testing.assert_allclose(reverberate(waves, bank[:1])[0], expected, atol=1e-4)


def test_silence_in_a_room_is_silence(bank: torch.Tensor) -> None:
    assert not reverberate(torch.zeros(1, 4_000), bank[:1]).any()
