"""Imports go one way; grpc and torch stay in their rooms."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = "asr_service"
ROOT = Path(__file__).parents[1]

# A room may import itself and the rooms of lower rank.
RANK = {
    "types": 0,
    "errors": 0,
    "torchaudio_guard": 0,
    "config": 1,
    "audio": 2,
    "tokenizer": 2,
    "lexicon": 2,
    "features": 3,
    "model": 4,
    "decoding": 5,
    "engine": 6,
    "streaming": 7,
    "server": 8,
}
# Rooms beside that line, and what they may import.
BESIDE = {
    "generated": {"generated"},
    "client": {"generated", "types", "errors", "config", "client"},
    # Evaluation may use all but the server; it may call one through the client.
    "evaluation": (set(RANK) - {"server"}) | {"evaluation", "client"},
    # The command line is above everything, and nothing is above it.
    "commands": set(RANK) | {"evaluation", "client", "commands", "samples"},
    "cli": {"commands", "errors", "types", "config"},
    "samples": {"evaluation"},
}
GRPC_ROOMS = {"server", "client", "generated"}
# The one module outside that turns the client's messages into our types; grpc itself it does not know.
READS_MESSAGES = f"{PACKAGE}.commands.remote"
# `python -m asr_service.server` is `asr serve`: a door into the command line, which nothing imports.
DOOR = f"{PACKAGE}.server.__main__"
WITHOUT_TORCH = [
    "types",
    "errors",
    "config",
    "engine.interface",
    "engine.scheduler",
    "engine.slots",
    "streaming",
    "server",
]
GRPC_MODULES = ("grpc", "grpc_health", "grpc_reflection", "grpc_status", "google.rpc", "google.protobuf")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, at any depth of its code; relative imports made absolute."""
    found: set[str] = set()
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found.add(source)
            found.update(f"{source}.{alias.name}" for alias in node.names)
    return found


FILES = sorted(ROOT.joinpath(PACKAGE).rglob("*.py"))
IMPORTS = {module_name(path): imports_of(path) for path in FILES}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def ours(imports: set[str]) -> set[str]:
    return {name for name in imports if name.startswith(f"{PACKAGE}.")}


def allowed(name: str) -> set[str]:
    if name in RANK:
        return {other for other, rank in RANK.items() if rank < RANK[name]} | {name}
    return BESIDE[name]


@pytest.mark.parametrize("module", IMPORTS)
def test_imports_go_one_way(module: str) -> None:
    here = room(module)
    if not here:
        assert not ours(IMPORTS[module]), f"{module} must import nothing of the package"
        return
    assert here in RANK or here in BESIDE, f"{module}: the room {here!r} has no place in the order; give it one here"
    wrong = {name for name in ours(IMPORTS[module]) if room(name) not in allowed(here)}
    if here == "server" or module == READS_MESSAGES:
        wrong = {name for name in wrong if room(name) != "generated"}
    if module == DOOR:
        wrong = {name for name in wrong if room(name) != "cli"}
    assert not wrong, f"{module} must not import {sorted(wrong)}"


@pytest.mark.parametrize("module", IMPORTS)
def test_grpc_is_known_to_the_server_and_the_client_only(module: str) -> None:
    found = {name for name in IMPORTS[module] if name.startswith(GRPC_MODULES)}
    if module == READS_MESSAGES:
        found = {name for name in found if not name.startswith("google.protobuf")}
    assert not found or room(module) in GRPC_ROOMS, f"{module} must not import {sorted(found)}"


@pytest.mark.parametrize("module", IMPORTS)
def test_torch_is_not_known_where_streams_are_kept(module: str) -> None:
    inner = module.removeprefix(f"{PACKAGE}.")
    if any(inner == name or inner.startswith(f"{name}.") for name in WITHOUT_TORCH):
        heavy = {name for name in IMPORTS[module] if name.split(".")[0] in {"torch", "torchaudio"}}
        heavy |= {name for name in ours(IMPORTS[module]) if room(name) in {"model", "features", "torchaudio_guard"}}
        assert not heavy, f"{module} must not import {sorted(heavy)}"


@pytest.mark.parametrize("module", IMPORTS)
def test_the_package_imports_neither_training_nor_tests(module: str) -> None:
    wrong = {name for name in IMPORTS[module] if name.split(".")[0] in {"training", "tests", "protos"}}
    assert not wrong, f"{module} must not import {sorted(wrong)}"


def test_torchaudio_is_imported_through_its_guard_only() -> None:
    files = [*FILES, *sorted((ROOT / "training").rglob("*.py"))]
    direct = [path.name for path in files if any(name.split(".")[0] == "torchaudio" for name in imports_of(path))]
    assert direct == []  # the guard imports it by name, after it has looked


@pytest.mark.parametrize("path", [path for path in FILES if "generated" not in path.parts], ids=module_name)
def test_a_module_has_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_nothing_imports_the_door() -> None:
    assert not [module for module, imports in IMPORTS.items() if DOOR in imports]


def test_no_room_is_called_after_nothing() -> None:
    vague = {"manager", "helper", "helpers", "utils", "util", "core", "common", "misc"}
    assert not {path.stem for path in FILES} & vague
