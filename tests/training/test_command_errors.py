"""A person's mistake is one line; a fault of ours keeps its traceback."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

import training
from asr_service.errors import ConfigError
from training.command_errors import told_in_one_line
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


@pytest.mark.parametrize(
    ("command", "options", "told"),
    [
        ("curves", "--run {0}/none", "/none: no checkpoint there"),
        ("augmentation_cost", "--config {0}/none.toml --store {0}", "/none.toml"),
        ("augmentation_cost", "--config {1}/an4.toml --store {0}/none", "/none/files.txt"),
    ],
)
def test_so_are_wrong_paths_of_a_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    options: str,
    told: str,
) -> None:
    recipes = Path(training.__file__).parent / "recipes"
    monkeypatch.setattr("sys.argv", [command, *options.format(tmp_path, recipes).split()])
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(f"training.{command}").main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{command}: ") and f"{tmp_path}{told}" in line


def test_an_error_from_inside_another_package_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="reshape"), told_in_one_line("train"):
        np.arange(3).reshape(2)
