"""With the extra `train` alone, all of training can be imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import training

ROOT = Path(training.__file__).parents[1]


def imported(path: Path) -> set[str]:
    """Packages that a module needs to be imported: what only a function imports may be optional."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.split(".")[0] for name in found} - sys.stdlib_module_names


def test_training_needs_no_package_but_the_service_s_and_its_own() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    names = {re.split("[<>=]", requirement)[0].replace("-", "_") for requirement in wanted}
    needed = {name: path.name for path in (ROOT / "training").rglob("*.py") for name in imported(path)}
    assert {"librosa", "torch", "training"} < needed.keys()
    assert {name: needed[name] for name in needed.keys() - names - {"asr_service", "training"}} == {}
