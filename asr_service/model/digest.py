"""Which weights these are, whatever the bundle calls itself: a digest of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from asr_service.errors import BundleError
from asr_service.model.bundle import CARD_FILE


def bundle_digest(directory: Path) -> str:
    """SHA-256 over the names and bytes of a bundle's files, its card left out. Raises BundleError."""
    digest = hashlib.sha256()
    try:
        for path in sorted(path for path in directory.iterdir() if path.is_file() and path.name != CARD_FILE):
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
    except OSError as error:
        raise BundleError(f"model directory {directory}: {error.strerror}") from error
    return digest.hexdigest()


def model_hash(directory: Path) -> str:
    """`bundle_digest` with its kind in front, as servers and evaluations name it: `sha256:…`. Raises BundleError."""
    return f"sha256:{bundle_digest(directory)}"
