"""A person's mistake is one line; a fault of ours keeps its traceback."""

from __future__ import annotations

import numpy as np
import pytest

from asr_service.errors import ConfigError
from training.mistakes import told_in_one_line
from training.recipe import OptimConfig


def test_what_our_code_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"), told_in_one_line("train"):
        OptimConfig(lr=0.0)
    assert capsys.readouterr().err == "train: [optim] lr is 0.0, must be above 0\n"


@pytest.mark.parametrize("error", [ConfigError("no such bundle"), FileNotFoundError(2, "No such file", "x.toml")])
def test_so_are_wrong_files(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"), told_in_one_line("train"):
        raise error
    assert capsys.readouterr().err == f"train: {error}\n"


def test_an_error_from_inside_another_package_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="reshape"), told_in_one_line("train"):
        np.arange(3).reshape(2)
