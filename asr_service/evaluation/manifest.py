"""References to score against: NeMo-style JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from asr_service.errors import ConfigError
from asr_service.evaluation.reference import Reference


def read_references(path: Path, *, corpora: Iterable[str] = ()) -> list[Reference]:
    """Read a manifest, only some `corpora` of it if any are named; audio paths are relative to its folder.

    Raises ConfigError that names the line: not JSON, a field missing, the same audio twice.
    """
    wanted = set(corpora)
    references: dict[str, Reference] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"manifest {path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            reference = Reference(
                utterance_id=row["audio_filepath"],
                audio_path=path.parent / row["audio_filepath"],
                text=row["text"],
                duration_s=float(row.get("duration", 0.0)),
                speaker=row.get("speaker", ""),
                corpus=row.get("corpus", ""),
            )
        except ValueError as error:
            raise ConfigError(f"manifest {path}:{number}: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"manifest {path}:{number}: needs an object with audio_filepath and text") from error
        if reference.utterance_id in references:
            raise ConfigError(f"manifest {path}:{number}: {reference.utterance_id} stands there twice")
        if not wanted or reference.corpus in wanted:
            references[reference.utterance_id] = reference
    if not references:
        raise ConfigError(f"manifest {path}: no utterance" + (f" of {', '.join(sorted(wanted))}" if wanted else ""))
    return list(references.values())
