"""The utterances that a bundle's search is tuned and judged on, and the options that choose them."""

from __future__ import annotations

import argparse
from pathlib import Path

from asr_service.commands.option_types import positive
from training.data import PcmStore, Utterance, read_manifest, speech_dir
from training.recipe import DataConfig
from training.selection import dev_store, spelled_out

# The parts of the speech folder's dev set that are like what people dictate.
_DEFAULT_MANIFEST = "dev.jsonl"
_DEFAULT_PREFIX = "librispeech"


def add_dev_options(parser: argparse.ArgumentParser, *, every: int) -> None:
    """`--manifest`, `--corpus`, `--every` with this default, `--pcm` and `--out`."""
    parser.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help=f"dev set; without it, the corpora {_DEFAULT_PREFIX}* of {_DEFAULT_MANIFEST} in the speech folder",
    )
    parser.add_argument(
        "--corpus", action="append", default=[], metavar="NAME", help="only this corpus; may be given again"
    )
    parser.add_argument("--every", type=positive, default=every, help=f"take every k-th utterance; default: {every}")
    parser.add_argument(
        "--pcm",
        type=Path,
        metavar="FOLDER",
        help="folder of the decoded audio; default: in runs/pcm, shared with recipes that take all of this dev set",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/tune"), help="folder for the posteriors")


def dev_set(arguments: argparse.Namespace) -> tuple[list[Utterance], PcmStore, list[int]]:
    """All utterances of the manifest, their samples, and the places of those that the options choose.

    Recordings that cannot be decoded are left out, and so are texts that are not spelled out, which are counted.

    Raises ValueError, naming manifest and corpora, for a corpus that is not in the manifest, and where nothing with
    words is left.
    """
    manifest = arguments.manifest or speech_dir() / _DEFAULT_MANIFEST
    prefix = "" if arguments.manifest or arguments.corpus else _DEFAULT_PREFIX
    wanted = ", ".join(arguments.corpus) or (f"{prefix}*" if prefix else "any corpus")
    utterances = read_manifest(manifest)
    rows = [
        row
        for row, utterance in enumerate(utterances)
        if utterance.corpus.startswith(prefix) and (not arguments.corpus or utterance.corpus in arguments.corpus)
    ][:: arguments.every]
    there = {utterance.corpus for utterance in utterances}
    missing = ", ".join(corpus for corpus in arguments.corpus if corpus not in there)
    if missing or not rows:
        names = ", ".join(sorted(corpus or "(no name)" for corpus in there)) or "none"
        raise ValueError(f"{manifest}: no utterance of {missing or wanted}; its corpora, for --corpus: {names}")
    own = DataConfig(dev_manifest=str(manifest.resolve()))
    store = PcmStore.build(utterances, arguments.pcm or dev_store(Path("runs"), own))
    rows = [row for row in rows if row not in store.skipped]
    if not any(utterances[row].text for row in rows):
        raise ValueError(f"{manifest}: no utterance of {wanted} has both audio and words")
    return utterances, store, spelled_out(manifest, utterances, rows)
