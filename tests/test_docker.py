"""The image's parts that can be tried without a container engine: what it copies, and its health check."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from asr_service.config import ServerSettings, Settings
from asr_service.server.app import ServerThread
from tests.fake_engine import FakeEngine

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")


def copied() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    assert "asr_service" in copied()
    ignore = (ROOT / "docker" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignore[0] == "*"
    kept = {line[1:] for line in ignore if line.startswith("!")}
    assert set(copied()) == kept
    assert [source for source in copied() if not (ROOT / source).exists()] == []


def test_the_image_does_not_run_as_root() -> None:
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, flags=re.MULTILINE) == ["asr"]


def health_check(address: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docker" / "healthcheck.py"), address]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_health_check_passes_while_serving_and_fails_without_a_server() -> None:
    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0, grace_s=2.0))
    with ServerThread(settings, FakeEngine) as address:
        serving = health_check(address)
    assert serving.returncode == 0, serving.stderr
    gone = health_check(address)
    assert gone.returncode == 1
    assert "UNAVAILABLE" in gone.stderr
