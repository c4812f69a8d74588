"""References of a test set, from the formats that people have: one reader a format, chosen by name and content."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from asr_service.errors import ConfigError
from asr_service.evaluation.problems import refuse_if_any, wrong_times
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references.kaldi import read_kaldi
from asr_service.evaluation.references.lhotse import read_lhotse
from asr_service.evaluation.references.librispeech import TRANSCRIPTS, read_librispeech
from asr_service.evaluation.references.nist import read_ctm, read_stm, read_trn
from asr_service.evaluation.references.rows import read_jsonl, read_table
from asr_service.evaluation.references.subtitles import read_subtitles
from asr_service.evaluation.references.text import numbered

Reader = Callable[[Path, list[str]], list[Reference]]

READERS: dict[str, Reader] = {
    "jsonl": read_jsonl,
    "csv": read_table,
    "tsv": read_table,
    "kaldi": read_kaldi,
    "librispeech": read_librispeech,
    "stm": read_stm,
    "ctm": read_ctm,
    "trn": read_trn,
    "srt": read_subtitles,
    "vtt": read_subtitles,
    "lhotse": read_lhotse,
}
FORMATS = tuple(READERS)


def read_references(
    paths: Path | str | Sequence[Path | str],
    *,
    corpora: Iterable[str] = (),
    format: str = "",  # noqa: A002 -- the field's own word, and the option's name
    check_audio: bool = False,
) -> list[Reference]:
    """Read one manifest or several, all in `format`, one of FORMATS, or each in the one that it looks like.

    Only some `corpora` are kept if any are named. With `check_audio` every reference must have a recording that is
    there. Audio paths are relative to the manifest's folder.

    Raises ManifestProblems with all that is wrong: files that cannot be read, lines that are malformed, times that are
    no seconds from 0 on, ids that stand there twice, recordings that are missing, a manifest
    without an utterance, a corpus that no utterance is of; ConfigError for an unknown format.
    """
    if format and format not in READERS:
        raise ConfigError(f"format {format!r} is not known: one of {', '.join(FORMATS)}", field="format")
    manifests = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    wanted = set(corpora)
    problems: list[str] = []
    references: list[Reference] = []
    for manifest in manifests:
        known = len(problems)
        found = _read(manifest, format, problems)
        problems += wrong_times(found)
        if not found and len(problems) == known:
            problems.append(f"manifest {manifest}: no utterance")
        references += found
    problems += _repeated(references)
    if not manifests:
        problems.append("no manifest is named")
    if wanted and not problems:
        named = ", ".join(str(manifest) for manifest in manifests)
        absent = sorted(wanted - {reference.corpus for reference in references})
        problems += [f"manifest {named}: no utterance of the corpus {corpus}" for corpus in absent]
        references = [reference for reference in references if reference.corpus in wanted]
    if check_audio:
        problems += audio_problems(references)
    refuse_if_any(problems)
    return references


def format_of(path: Path) -> str:
    """The format of a manifest by its name and content; "" where it is none of FORMATS."""
    if path.is_dir():
        if (path / "text").is_file():
            return "kaldi"
        return "librispeech" if next(path.rglob(TRANSCRIPTS), None) else ""
    if path.name == "text":
        return "kaldi"
    suffix = Path(path.name.removesuffix(".gz")).suffix.removeprefix(".").lower()
    if suffix in {"json", "jsonl"}:
        return "lhotse" if _holds_cuts(path) else "jsonl"
    return suffix if suffix in READERS else ""


def audio_problems(references: Iterable[Reference]) -> Iterator[str]:
    """A problem for each reference whose recording is missing, or has several channels that are scored apart."""
    channels: dict[Path, set[object]] = defaultdict(set)
    there: dict[Path, bool] = {}
    for reference in references:
        path = reference.audio_path
        if path is None:
            yield f"{reference.utterance_id}: no recording is named"
            continue
        if path not in there:
            there[path] = path.is_file()
        if not there[path]:
            yield f"{reference.utterance_id}: the recording {path} is missing"
        channels[path].add(reference.fields.get("channel"))
    for path, names in channels.items():
        if len(names) > 1:
            yield f"{path}: {len(names)} channels are scored apart: make a recording of each"


def _read(manifest: Path, format_name: str, problems: list[str]) -> list[Reference]:
    if not manifest.exists():
        problems.append(f"manifest {manifest}: No such file or directory")
        return []
    chosen = format_name or format_of(manifest)
    if not chosen:
        problems.append(f"manifest {manifest}: its format is none of {', '.join(FORMATS)}; name it")
        return []
    return READERS[chosen](manifest, problems)


def _holds_cuts(path: Path) -> bool:
    # Whatever is wrong with the file, its reader says.
    _, line = next(numbered(path, []), ("", ""))
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and ("supervisions" in row or str(row.get("type", "")).endswith("Cut"))


def _repeated(references: Iterable[Reference]) -> Iterator[str]:
    counts = Counter(reference.utterance_id for reference in references)
    return (f"{name} stands there {count} times" for name, count in counts.items() if count > 1)
