"""Which utterances of the manifests a recipe trains on and is measured on."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from training.data import SPEECH_DIR_VARIABLE, Utterance, read_manifest, speech_dir
from training.recipe import DataConfig

# Of how samples are made of recordings; another one, and the stores that there are do not count.
_DECODING = "2\n"
# Corpora that an error names.
_MAX_NAMED = 8


def training_utterances(data: DataConfig) -> list[Utterance]:
    """The recipe's training utterances, those of `tuning_speakers` included; raises ValueError when there are none."""
    return _selected(data.manifest, data.corpora, data.path_pattern, data.exclude_corpora)


def dev_utterances(data: DataConfig) -> list[Utterance]:
    """The utterances that the recipe is measured on; raises ValueError when there are none."""
    return _selected(data.dev_manifest, data.dev_corpora, data.dev_path_pattern, ())


def _selected(manifest: str, corpora: Sequence[str], pattern: str, excluded: Sequence[str]) -> list[Utterance]:
    wanted = re.compile(pattern)
    utterances = [
        utterance
        for utterance in read_manifest(speech_dir() / manifest, exclude_corpora=excluded)
        if (not corpora or utterance.corpus in corpora) and wanted.search(utterance.path.as_posix())
    ]
    if not utterances:
        raise ValueError(_nothing_in(manifest, corpora, pattern, excluded))
    return utterances


def _nothing_in(manifest: str, corpora: Sequence[str], pattern: str, excluded: Sequence[str]) -> str:
    """What was looked for in the manifest, and which corpora are there."""
    path = speech_dir() / manifest
    unset = SPEECH_DIR_VARIABLE not in os.environ and not Path(manifest).is_absolute()
    note = f" ({SPEECH_DIR_VARIABLE} is not set)" if unset else ""
    wanted = f" of the {'corpus' if len(corpora) == 1 else 'corpora'} {', '.join(corpora)}" if corpora else ""
    matching = f" matches {pattern!r}" if pattern else ""
    left = " but excluded ones" if excluded else ""
    there = sorted({utterance.corpus or "(no name)" for utterance in read_manifest(path)})
    named = [*there[:_MAX_NAMED], *([f"{len(there) - _MAX_NAMED} more"] if len(there) > _MAX_NAMED else [])]
    return f"{path}{note}: no utterance{wanted}{matching}{left}; it has {', '.join(named) or 'none'}"


def training_store(runs: Path, data: DataConfig) -> Path:
    """Folder of the decoded training audio; two selections never share one, nor do two manifests."""
    return runs / "pcm" / _store_name(data.manifest, data.corpora, data.path_pattern, data.exclude_corpora)


def dev_store(runs: Path, data: DataConfig) -> Path:
    return runs / "pcm" / _store_name(data.dev_manifest, data.dev_corpora, data.dev_path_pattern, ())


def _store_name(manifest: str, corpora: Sequence[str], pattern: str, excluded: Sequence[str]) -> str:
    chosen = f"{_DECODING}{(speech_dir() / manifest).resolve()}\n{pattern}"
    digest = hashlib.sha256(chosen.encode()).hexdigest()[:8]
    return "-".join([Path(manifest).stem, *corpora, *(f"no_{corpus}" for corpus in excluded), digest])
