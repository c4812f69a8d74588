"""Imports go one way; grpc and torch stay in their rooms."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGE = "asr_service"
ROOT = Path(__file__).parents[1]

# A room may import itself and the rooms of lower rank.
RANK = {
    "types": 0,
    "errors": 0,
    "parts": 0,
    "parent_process": 0,
    "torchaudio_guard": 0,
    "toml_types": 0,
    "config": 1,
    "audio": 2,
    "tokenizer": 2,
    "lexicon": 2,
    "letter_to_sound": 3,
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
    "connection": {"client", "errors"},
    # Evaluation may use all but the server; it may call one through the client.
    "evaluation": (set(RANK) - {"server"}) | {"evaluation", "client", "connection"},
    # The load generator knows a server through the client alone.
    "bench": {"bench", "client", "connection", "evaluation", "audio", "types", "errors", "config"},
    # The command line is above everything, and nothing is above it.
    "commands": set(RANK) | {"bench", "evaluation", "client", "connection", "commands", "samples"},
    "cli": {"commands", "errors", "types", "config"},
    "samples": {"evaluation"},
}
GRPC_ROOMS = {"server", "client", "generated"}
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


def wrong_way(module: str) -> set[str]:
    here = room(module)
    if not here:
        return ours(IMPORTS[module])
    assert here in RANK or here in BESIDE, f"{module}: the room {here!r} has no place in the order; give it one here"
    excepted = {"cli"} if module == DOOR else {"generated"} if here == "server" else set()
    return {name for name in ours(IMPORTS[module]) if room(name) not in allowed(here) | excepted}


def of_grpc(module: str) -> set[str]:
    if room(module) in GRPC_ROOMS:
        return set()
    return {name for name in IMPORTS[module] if name.startswith(GRPC_MODULES)}


def of_torch(module: str) -> set[str]:
    inner = module.removeprefix(f"{PACKAGE}.")
    if not any(inner == name or inner.startswith(f"{name}.") for name in WITHOUT_TORCH):
        return set()
    heavy = {name for name in IMPORTS[module] if name.split(".")[0] in {"torch", "torchaudio"}}
    return heavy | {name for name in ours(IMPORTS[module]) if room(name) in {"model", "features", "torchaudio_guard"}}


def of_workshop(module: str) -> set[str]:
    return {name for name in IMPORTS[module] if name.split(".")[0] in {"training", "tests", "protos"}}


@pytest.mark.parametrize("rule", [wrong_way, of_grpc, of_torch, of_workshop], ids=lambda rule: rule.__name__)
def test_no_module_imports_what_it_must_not(rule: Callable[[str], set[str]]) -> None:
    assert {module: sorted(names) for module in IMPORTS if (names := rule(module))} == {}


def test_nothing_imports_the_door() -> None:
    assert [module for module, imports in IMPORTS.items() if DOOR in imports] == []


def test_only_the_commands_that_start_a_server_import_it() -> None:
    commands = {module: ours(imports) for module, imports in IMPORTS.items() if room(module) == "commands"}
    starting = {module for module, imports in commands.items() if "server" in map(room, imports)}
    assert starting == {f"{PACKAGE}.commands.serve", f"{PACKAGE}.commands.stream"}


def test_torchaudio_is_imported_through_its_guard_only() -> None:
    files = [*FILES, *sorted((ROOT / "training").rglob("*.py"))]
    direct = [path.name for path in files if any(name.split(".")[0] == "torchaudio" for name in imports_of(path))]
    assert direct == []  # the guard imports it by name, after it has looked


def test_no_module_has_more_than_400_lines() -> None:
    written = [path for path in FILES if "generated" not in path.parts]
    lengths = {module_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in written}
    assert {module: length for module, length in lengths.items() if length > 400} == {}


def test_the_architecture_page_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = " ".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    assert {name for name in (*RANK, *BESIDE) if f"`{name}`" not in table} == set()


def test_no_room_has_a_name_that_says_nothing() -> None:
    vague = {"manager", "helper", "helpers", "utils", "util", "core", "common", "misc"}
    assert not {path.stem for path in FILES} & vague
