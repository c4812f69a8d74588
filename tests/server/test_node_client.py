"""The API from another language: a Node client made from the .proto alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile

from tests.fake_engine import say
from tests.server.conftest import Service

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the client; its packages are installed outside the repository."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "client.js"):
        shutil.copy(ROOT / "tests" / "node" / name, folder)
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        pytest.skip(f"npm cannot install: {installed.stderr[-200:]}")
    return [node, str(folder / "client.js")]


def run(client: list[str], service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*client, service.address, *arguments],
        env={"ASR_PROTOS": str(ROOT / "protos"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_node_client_streams_a_file(client: list[str], service: Service, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"speech.{form.lower()}"
    soundfile.write(path, say(1, 2, 3, 1.2, 4, 5), 16_000, format=form)
    done = run(client, service, str(path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "one two three four five\n", "")


@pytest.mark.slow
def test_node_client_sees_the_servers_errors(client: list[str], service: Service, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear Sir or Madam, " * 1000)
    done = run(client, service, str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("INVALID_ARGUMENT: ")
