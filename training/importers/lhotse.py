"""lhotse CutSets: cuts of recordings that lie in files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from asr_service.evaluation.references.lhotse import parts_of_cuts
from asr_service.evaluation.references.rows import json_rows
from training.importers.record import CorpusError, Record, accepted, record_of


def read_lhotse(path: Path, *, corpus: str = "", audio_root: Path = Path()) -> Iterator[Record]:
    """The supervisions of a CutSet's cuts, each an utterance; a cut without one has an empty text.

    Relative paths are relative to `audio_root`, by default the working directory, as lhotse has them. JSON lines are
    read as they are, any other kind of file by the optional package `lhotse`. Raises CorpusError with all that is
    wrong: a file that cannot be read, cuts that are no plain stretch of one channel of a file (mixed, padded or
    multi-channel ones, ones with transforms, audio from commands or URLs); and where lhotse is needed and missing.
    """
    problems: list[str] = []
    json_lines = path.name.removesuffix(".gz").endswith(".jsonl")
    cuts = json_rows(path, problems) if json_lines else _by_lhotse(path)
    parts = parts_of_cuts(cuts, audio_root, path.name.split(".")[0], problems)
    records = [record_of(reference, corpus, segment=not whole) for reference, whole in parts]
    yield from accepted(records, problems, path)


def _by_lhotse(path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    try:
        from lhotse import CutSet
    except ModuleNotFoundError as error:
        raise CorpusError(f"{path}: not JSON lines, so it needs lhotse: pip install 'asr-service[lhotse]'") from error
    try:
        yield from ((f"{path}: {cut.id}", cut.to_dict()) for cut in CutSet.from_file(path))
    except Exception as error:  # lhotse raises whatever its readers do
        raise CorpusError(f"{path}: not a CutSet: {error}") from error
