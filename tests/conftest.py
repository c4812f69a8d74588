"""What all tests share: hypothesis without wall-clock limits, and the corpora where they are."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve other processes
os.environ.setdefault("OMP_NUM_THREADS", "1")

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
