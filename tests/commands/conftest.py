"""A test set, a tiny bundle and the command line that brings them together."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from asr_service.cli import main
from asr_service.config import ServerSettings, Settings
from asr_service.engine.engine import BatchingEngine
from asr_service.model.bundle import load_bundle
from asr_service.server.app import ServerThread
from tests.commands.evaluations import Run
from tests.engine.conftest import make_tiny_bundle
from tests.fake_engine import say


@pytest.fixture(scope="package")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    """Six recordings of two corpora; the text of each is what one would say."""
    rows = []
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", say(number, 0.2, number + 1, 0.3), 16_000)
        rows.append({"audio_filepath": f"{number}.wav", "text": f"Word {number}", "corpus": "ab"[number % 2]})
    manifest = tmp_path / "test.jsonl"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return manifest


@pytest.fixture
def asr(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: object) -> int:
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["asr", *words])
        return main(words)

    return run


@pytest.fixture
def server(bundle_dir: Path) -> Iterator[str]:
    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0))
    with ServerThread(settings, lambda: BatchingEngine(load_bundle(bundle_dir), settings.engine)) as address:
        yield address
