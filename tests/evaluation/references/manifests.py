"""Writing manifests, and what reading one that is wrong says."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_service.evaluation.problems import ManifestProblems
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references import read_references

Rows = list[Reference]


def lines(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def problems_of(path: Path, **options: object) -> list[str]:
    with pytest.raises(ManifestProblems) as caught:
        read_references(path, **options)
    return [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]


def two_parts(folder: Path) -> Rows:
    """Of one recording, with everything that a reference can have; nobody speaks in the second."""
    audio = folder / "a/r.wav"
    return [
        Reference("u1", 'He said "no", twice', audio, 1.5, 2.25, "ann", "set", {"snr": 3.5, "room": "b"}),
        Reference("u2", "", audio, 4.0, 1.0, "bob", "set", {"snr": 12.25, "room": "007"}),
    ]
