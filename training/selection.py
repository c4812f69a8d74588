"""Which utterances of the manifests a recipe trains on and is measured on."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from asr_service.evaluation.normalizer import dropped_characters
from training.data import SPEECH_DIR_VARIABLE, Utterance, read_manifest, speech_dir
from training.manifest import warn_of_missing
from training.recipe import DataConfig

# Of how samples are made of recordings; another one, and the stores that there are do not count.
_DECODING = "3\n"
_MAX_NAME_BYTES = 200  # file systems take 255 and what is added to it
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
    path = speech_dir() / manifest
    rows = read_manifest(path)
    warn_of_missing(path, excluded, {utterance.corpus for utterance in rows})
    there = [utterance for utterance in rows if utterance.corpus not in excluded]
    utterances = [
        utterance
        for utterance in there
        if (not corpora or utterance.corpus in corpora) and wanted.search(utterance.path.as_posix())
    ]
    if not utterances:
        raise ValueError(_nothing_in(manifest, corpora, pattern, excluded))
    known = {utterance.corpus for utterance in there}
    missing = [corpus for corpus in corpora if corpus not in known]
    if missing:  # a name that is misspelt would cost its data in silence
        raise ValueError(_nothing_in(manifest, missing, "", excluded))
    return utterances


def spelled_out(manifest: Path | str, utterances: Sequence[Utterance], rows: Sequence[int]) -> list[int]:
    """Those of `rows` whose texts normalisation has words for; prints how many others there are.

    Of "in 1984" it leaves "in": who recognises it right would be told of two errors. Raises ValueError where no words
    are left.
    """
    kept = [row for row in rows if not dropped_characters(utterances[row].written)]
    if len(kept) < len(rows):
        print(f"{manifest}: {len(rows) - len(kept)} of {len(rows)} texts are not spelled out (digits, signs); left out")
    if not any(utterances[row].text for row in kept):
        raise ValueError(f"{manifest}: no text with words that are spelled out")
    return kept


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
    name = "-".join([Path(manifest).stem, *corpora, *(f"no_{corpus}" for corpus in excluded), digest])
    if len(name.encode()) <= _MAX_NAME_BYTES:
        return name
    return f"{len(corpora)}-corpora-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
