"""In what precision a model is served: what was asked for, the faster where that was left open."""

from __future__ import annotations

import pytest
import torch

from asr_service.errors import ConfigError
from asr_service.model import precision
from asr_service.model.precision import Precision, faster_in_bf16, has_bf16, supported_precision


@pytest.mark.parametrize(
    ("cpu", "best"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bf16"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, "fp32"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_the_precision_is_what_was_asked_for_and_auto_is_the_faster(
    monkeypatch: pytest.MonkeyPatch, cpu: dict[str, object], best: Precision
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    assert supported_precision("auto") == best
    assert faster_in_bf16() == (best == "bf16")
    assert supported_precision("fp32") == "fp32"
    assert supported_precision("bf16") == "bf16"


def test_bf16_that_the_cpu_lacks_is_refused_and_auto_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert supported_precision("auto") == supported_precision("fp32") == "fp32"
    with pytest.raises(ConfigError, match=r"engine\.precision is 'bf16', which needs a CPU with") as raised:
        supported_precision("bf16")
    assert raised.value.field == "engine.precision"


def test_without_onednn_there_is_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_bf16()


def test_what_is_told_of_the_cpu_is_what_torch_can_pack() -> None:
    weight = torch.ones(8, 8, dtype=torch.bfloat16)
    try:
        torch.ops.mkldnn._reorder_linear_weight(weight)
    except (RuntimeError, AttributeError):
        assert not has_bf16()
    else:
        assert has_bf16()
