"""From a model directory to an engine that is ready to start."""

from __future__ import annotations

from pathlib import Path

from asr_service.config import EngineSettings
from asr_service.engine.engine import BatchingEngine
from asr_service.engine.interface import Engine
from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR, load_bundle


def load_engine(model_dir: Path | None, *, settings: EngineSettings) -> Engine:
    """Load a bundle, by default the one that ships in the package.

    Raises BundleError that names the file when the directory is no bundle, or one without settings for
    `settings.latency`; ConfigError where the CPU lacks `settings.precision`.
    """
    bundle = load_bundle(model_dir or SHIPPED_DIR / DEFAULT_MODEL)
    return BatchingEngine(bundle.at(settings.latency), settings)
