"""Nothing on the serving path unpickles: a model file from a stranger must not be able to run code."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_architecture import IMPORTS, PACKAGE, ROOT

ENTRIES = [
    f"{PACKAGE}.server.app",
    f"{PACKAGE}.server.__main__",
    f"{PACKAGE}.engine.load",
    f"{PACKAGE}.cli",
    *sorted(name for name in IMPORTS if name.startswith(f"{PACKAGE}.commands.")),
]
UNPICKLING_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def reachable(entries: list[str]) -> set[str]:
    """Our modules that importing and running `entries` can import, directly or not."""
    seen: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module not in IMPORTS or module in seen:
            continue
        seen.add(module)
        waiting.extend(IMPORTS[module])
        parts = module.split(".")
        waiting.extend(".".join(parts[:end]) for end in range(1, len(parts)))
    return seen


def path_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def unpickling(source: str) -> list[str]:
    """Call sites, as `line: text`, that can unpickle; numpy's load only when it is told to."""
    sites = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            sites += [f"{node.lineno}: import {name}" for name in names if name.split(".")[0] in UNPICKLING_MODULES]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            allows = any(keyword.arg == "allow_pickle" for keyword in node.keywords)
            if called in {"torch.load", "torch.jit.load", "pickle.load", "pickle.loads"} or allows:
                sites.append(f"{node.lineno}: {ast.unparse(node)}")
    return sites


SERVING = sorted(reachable(ENTRIES))


def test_the_serving_path_holds_the_model_and_the_server() -> None:
    wanted = {"server.app", "server.servicer", "engine.engine", "engine.runner", "model.bundle", "audio.stream"}
    assert {f"{PACKAGE}.{name}" for name in wanted} <= set(SERVING)


def test_no_module_that_serves_unpickles() -> None:
    sites = {module: unpickling(path_of(module).read_text(encoding="utf-8")) for module in SERVING}
    assert {module: found for module, found in sites.items() if found} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import load",
        "import joblib",
        "import torch\ntorch.load('model.pt')",
        "import torch\ntorch.load('model.pt', weights_only=True)",
        "import numpy as np\nnp.load('x.npy', allow_pickle=True)",
    ],
)
def test_the_check_sees_what_it_must_not_miss(source: str) -> None:
    assert unpickling(source)


def test_a_running_server_has_loaded_only_modules_that_do_not_unpickle() -> None:
    """What a real process has imported, by whatever way, and not what the source says."""
    program = (
        "import json, sys\n"
        f"import {PACKAGE}.server.app, {PACKAGE}.engine.load\n"
        f"from {PACKAGE}.model.bundle import load_bundle\n"
        f"ours = [module for name, module in sys.modules.items() if name.split('.')[0] == '{PACKAGE}']\n"
        "print(json.dumps([module.__file__ for module in ours if module.__file__]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=110)
    assert done.returncode == 0, done.stderr
    files = [Path(file) for file in json.loads(done.stdout)]
    assert any(file.name == "app.py" for file in files)
    assert any(file.name == "bundle.py" for file in files)
    assert {str(file): sites for file in files if (sites := unpickling(file.read_text(encoding="utf-8")))} == {}
