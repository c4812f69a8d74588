"""A test set recognised by pocketsphinx with the model in its package, for `asr eval --hyp` and `asr compare`.

    pip install pocketsphinx
    python -m benchmarks.pocketsphinx_baseline MANIFEST --out sphinx.jsonl
    asr eval MANIFEST --hyp sphinx.jsonl --json sphinx.json

Its acoustic model, dictionary and trigram are those of US English that every installation has; beams are its own
defaults. An utterance is normalised as a whole (cepstral mean), which is its mode for files.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from asr_service.commands.progress import shown
from asr_service.config import Settings
from asr_service.errors import AsrError
from asr_service.evaluation import Reference, read_references
from asr_service.evaluation.references import audio_problems
from asr_service.evaluation.waveform import read_waveform


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST")
    parser.add_argument("--corpus", action="append", default=[], help="only this corpus; may be given again")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth utterance")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="hypotheses as JSON lines")
    arguments = parser.parse_args()
    try:
        import pocketsphinx
    except ImportError:
        print("this needs pocketsphinx: pip install pocketsphinx", file=sys.stderr)
        return 2
    try:
        references = read_references(arguments.manifests, corpora=arguments.corpus)[:: arguments.every]
    except AsrError as error:
        print(error.message, file=sys.stderr)
        return 2
    if problems := list(audio_problems(references)):
        print(*problems, sep="\n", file=sys.stderr)
        return 2
    decoder = pocketsphinx.Decoder(loglevel="FATAL")
    spent_s = audio_s = 0.0
    with arguments.out.open("w", encoding="utf-8") as file:
        for row in shown(recognised(decoder, references), len(references), "utterances"):
            file.write(json.dumps(row) + "\n")
            spent_s += row["processing_s"]
            audio_s += row["audio_s"]
    print(f"{len(references)} utterances; RTFx {audio_s / spent_s:.2f} ({audio_s:.0f} s of audio in {spent_s:.0f} s)")
    return 0


def recognised(decoder: Any, references: list[Reference]) -> Iterator[dict[str, Any]]:
    """One row of the hypotheses' file for each reference, in order."""
    for reference in references:
        waveform = read_waveform(reference, Settings())
        pcm = np.round(np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes()
        begun = time.perf_counter()
        decoder.start_utt()
        decoder.process_raw(pcm, no_search=False, full_utt=True)
        decoder.end_utt()
        best = decoder.hyp()
        spent_s = time.perf_counter() - begun
        yield {
            "id": reference.utterance_id,
            "text": best.hypstr if best is not None else "",
            "processing_s": spent_s,
            "audio_s": len(waveform) / 16_000,
        }


if __name__ == "__main__":
    sys.exit(main())
