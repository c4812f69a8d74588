from __future__ import annotations

import subprocess
import sys

import pytest

import asr_service.evaluation
from asr_service.evaluation import Evaluation, scoring
from asr_service.evaluation.significance import compare


def loaded(code: str, *modules: str) -> str:
    """Which of `modules` a fresh interpreter has after `code`."""
    script = f"import sys\n{code}\nprint(*(name for name in {modules!r} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()


def test_the_normaliser_loads_neither_torch_nor_numpy() -> None:
    assert loaded("import asr_service.evaluation.normalizer", "torch", "numpy", "jiwer", "whisper_normalizer") == ""


def test_scoring_and_comparing_load_no_torch() -> None:
    code = "from asr_service.evaluation import compare, read_outputs, read_references, score; score(['a'], ['b'])"
    assert loaded(code, "torch", "grpc", "whisper_normalizer") == ""


def test_the_package_gives_functions_even_where_their_modules_were_imported_first() -> None:
    assert asr_service.evaluation.score is scoring.score
    assert asr_service.evaluation.compare is compare
    assert isinstance(asr_service.evaluation.score(["a"], ["a"]), Evaluation)


def test_every_name_that_the_package_promises_is_there() -> None:
    for name in asr_service.evaluation.__all__:
        assert getattr(asr_service.evaluation, name).__name__ == name
    assert {"score", "compare", "read_references"} <= set(dir(asr_service.evaluation))
    with pytest.raises(AttributeError, match="no attribute 'guess'"):
        asr_service.evaluation.guess  # noqa: B018
