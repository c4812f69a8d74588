"""The precisions that a model can be served in, for tests of each; those that this CPU lacks are skipped."""

from __future__ import annotations

import pytest

from asr_service.model.precision import has_bf16

needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this CPU has no products in bf16")
PRECISIONS = ["fp32", pytest.param("bf16", marks=needs_bf16)]
