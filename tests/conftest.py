"""What all tests share: hypothesis without wall-clock limits, a tiny bundle and its server, the corpora if any."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve other processes
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A slow machine is no failure, and a failure must come back on the next run.
settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def speech_dir() -> Path:
    """The corpora's folder (`ASR_SPEECH_DIR`); the test is skipped where it is absent."""
    folder = Path(os.environ.get("ASR_SPEECH_DIR", Path(__file__).parents[2] / "shared" / "speech"))
    if not (folder / "dev.jsonl").is_file():
        pytest.skip(f"no speech corpora in {folder}")
    return folder


@pytest.fixture(scope="session")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle with random weights; tests that change one make their own."""
    from tests.engine.conftest import make_tiny_bundle

    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def server(bundle_dir: Path) -> Iterator[str]:
    """The address of a server of that bundle."""
    from asr_service.config import ServerSettings, Settings
    from asr_service.engine.engine import BatchingEngine
    from asr_service.model.bundle import load_bundle
    from asr_service.server.app import ServerThread

    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0))
    with ServerThread(settings, lambda: BatchingEngine(load_bundle(bundle_dir), settings.engine)) as address:
        yield address
