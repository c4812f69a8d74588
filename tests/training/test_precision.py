"""The type of a step's products: bfloat16 only where the device is faster in it, unless a recipe says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import training.precision
from training.precision import compute_dtype

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    compute_dtype.cache_clear()
    yield
    compute_dtype.cache_clear()


@pytest.mark.parametrize("faster", [True, False])
def test_auto_is_bfloat16_where_the_cpu_is_faster_in_it(monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    monkeypatch.setattr(training.precision, "faster_in_bf16", lambda: faster)
    assert compute_dtype("auto", CPU) == (torch.bfloat16 if faster else torch.float32)
    assert compute_dtype("bfloat16", CPU) == torch.bfloat16
    assert compute_dtype("float32", CPU) == torch.float32


@pytest.mark.parametrize("has", [True, False])
def test_auto_is_bfloat16_where_the_gpu_has_it(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has and not including_emulation)
    assert compute_dtype("auto", GPU) == (torch.bfloat16 if has else torch.float32)
