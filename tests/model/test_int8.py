"""Weights in one byte come back to within half a step of their row, and a file that lacks a part is refused by name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr_service.model.config import preset
from asr_service.model.int8 import SHORTEST_ROW, quantised, restored
from asr_service.model.transformer import Transformer


@given(rows=st.integers(1, 5), columns=st.integers(SHORTEST_ROW, 80), exponent=st.integers(-30, 30), seed=st.integers())
def test_a_value_is_off_by_at_most_half_a_step_of_its_row(rows: int, columns: int, exponent: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed % 2**63)
    weight = torch.randn(rows, columns, generator=generator) * 2.0**exponent
    found = restored(quantised({"w": weight}))["w"]
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((found - weight).abs() <= step * 0.50001).all()
    assert found.dtype == torch.float32


def test_what_is_zero_stays_zero() -> None:
    weight = torch.cat([torch.zeros(1, 64), torch.ones(1, 64)])
    torch.testing.assert_close(restored(quantised({"w": weight}))["w"], weight)


def test_filters_are_stored_by_output_and_short_rows_in_fp16() -> None:
    weights = {"bias": torch.randn(64), "depthwise": torch.randn(64, 1, 15), "filters": torch.randn(8, 4, 3, 3)}
    stored = quantised(weights)
    assert {name: value.dtype for name, value in stored.items()} == {
        "bias": torch.float16,
        "depthwise": torch.float16,
        "filters": torch.int8,
        "filters.scale": torch.float32,
    }
    assert stored["filters.scale"].shape == (8,)
    assert restored(stored).keys() == weights.keys()


@pytest.mark.parametrize(
    ("stored", "named"),
    [
        ({"w": torch.ones(2, 64, dtype=torch.int8)}, "w is int8, but w.scale"),
        ({"w": torch.ones(2, 64, dtype=torch.int8), "w.scale": torch.ones(3)}, "w is int8, but w.scale"),
        ({"w": torch.ones(64, dtype=torch.int8), "w.scale": torch.ones(64)}, "w is int8, but w.scale"),
        ({"w": torch.ones(2, 64), "w.scale": torch.ones(2)}, "w.scale belongs to no int8 weight"),
    ],
)
def test_a_part_that_is_missing_is_named(stored: dict[str, torch.Tensor], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        restored(stored)


def test_the_next_size_is_a_file_of_less_than_30_mb() -> None:
    stored = quantised(Transformer(preset("streaming-m")).state_dict())
    assert sum(tensor.nbytes for tensor in stored.values()) < 29.9e6
