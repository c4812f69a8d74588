"""`asr eval MANIFEST`: word error rate of a model on a manifest, with its interval."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHUNK_BYTES = 64 * 1024


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser("eval", help="word error rate on a manifest, in process")
    parser.add_argument("manifest", type=Path, help="JSON lines with audio_filepath and text")
    parser.add_argument("--mode", choices=["accurate", "streaming"], default="accurate")
    parser.add_argument("--model", type=Path, default=None, help="bundle directory (default: the shipped model)")
    parser.add_argument("--corpus", action="append", default=[], help="only this corpus; may be given again")
    parser.add_argument("--every", type=int, default=1, help="only every Nth utterance, for a quick look")
    parser.add_argument("--json", type=Path, help="write counts and every hypothesis there")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from asr_service.config import Settings
    from asr_service.engine.load import load_engine
    from asr_service.errors import AsrError
    from asr_service.evaluation.manifest import read_references
    from asr_service.evaluation.normalizer import NORMALIZER_VERSION, normalize_transcript
    from asr_service.evaluation.wer import WordErrors, confidence_interval, word_errors
    from asr_service.streaming.transcribe import transcribe_bytes
    from asr_service.types import Mode, RecognitionConfig

    settings = Settings()
    try:
        references = read_references(arguments.manifest, corpora=arguments.corpus)[:: arguments.every]
        engine = load_engine(arguments.model, settings=settings.engine)
    except AsrError as error:
        print(f"asr eval: {error.message}", file=sys.stderr)
        return 2
    engine.start()
    rows: list[dict[str, Any]] = []
    groups: dict[str, list[WordErrors]] = {}
    audio_s = 0.0
    begun = time.monotonic()
    try:
        for number, reference in enumerate(references, 1):
            config = RecognitionConfig(mode=Mode(arguments.mode))
            try:
                finals = transcribe_bytes(engine, _pieces(reference.audio_path), config, settings=settings)
            except (AsrError, OSError) as error:
                print(f"asr eval: {reference.audio_path}: {error}", file=sys.stderr)
                return 2
            hypothesis = " ".join(final.alternatives[0].text for final in finals)
            counts = word_errors(reference.text, hypothesis)
            groups.setdefault(reference.corpus, []).append(counts)
            audio_s += reference.duration_s
            rows.append(
                {
                    "audio_filepath": reference.utterance_id,
                    "corpus": reference.corpus,
                    "reference": normalize_transcript(reference.text),
                    "hypothesis": hypothesis,
                    "errors": counts.errors,
                    "words": counts.reference_words,
                }
            )
            if sys.stderr.isatty() or number % 100 == 0:
                print(f"\r{number}/{len(references)}", end="", file=sys.stderr, flush=True)
    finally:
        engine.stop()
    elapsed_s = time.monotonic() - begun
    print(file=sys.stderr)
    everything = [count for counts in groups.values() for count in counts]
    summary: dict[str, Any] = {}
    for name, group in [*sorted(groups.items()), ("all", everything)]:
        total = sum(group, WordErrors())
        low, high = confidence_interval(group)
        summary[name] = {
            "wer": total.rate,
            "interval": [low, high],
            "substitutions": total.substitutions,
            "deletions": total.deletions,
            "insertions": total.insertions,
            "words": total.reference_words,
            "utterances": len(group),
        }
        print(
            f"{name:32s} WER {100 * total.rate:6.2f} % [{100 * low:.2f}, {100 * high:.2f}]  "
            f"S {total.substitutions} D {total.deletions} I {total.insertions} of {total.reference_words} words, "
            f"{len(group)} utterances"
        )
    print(
        f"model {engine.info.model}, mode {arguments.mode}, normaliser {NORMALIZER_VERSION}, 95 % bootstrap interval; "
        f"real-time factor {elapsed_s / audio_s:.3f} ({audio_s:.0f} s of audio in {elapsed_s:.0f} s)"
    )
    if arguments.json is not None:
        report = {"model": engine.info.model, "mode": arguments.mode, "summary": summary, "utterances": rows}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece
