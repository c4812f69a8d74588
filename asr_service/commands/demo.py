"""`asr demo [AUDIO]`: the service at work, in one command.

Starts a server in a process of its own, streams a clip to it at the pace of a microphone, shows the words as they
come, and says how good and how fast they were.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path
from typing import Any

from asr_service.commands.server_process import ServerProcess
from asr_service.commands.wording import readable, said

SAMPLES = Path(__file__).parents[1] / "samples"
CLIP = SAMPLES / "demo.flac"
REFERENCE = SAMPLES / "demo.txt"


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="serve, stream a clip, show the words as they come",
        description="Starts a server, streams a clip to it at the pace of a microphone, shows the words as they come, "
        "and says how good and how fast they were.",
    )
    parser.add_argument("audio", nargs="?", type=Path, metavar="AUDIO", help="your own recording (default: ours)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="bundle directory (default: the shipped model)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from asr_service.errors import AsrError

    audio = arguments.audio or CLIP
    try:
        with audio.open("rb"), ServerProcess(arguments.model) as server:
            print(f"server: model {server.model} serving on {server.address} after {server.start_s:.1f} s")
            if arguments.audio is None:
                print(f"clip: {CLIP.name}, synthesised speech (see make_demo_clip.py beside it), at its own pace")
            demonstrate(server.address, audio, None if arguments.audio else REFERENCE.read_text(encoding="utf-8"))
    except (AsrError, OSError) as error:
        print(f"asr demo: {readable(audio)}: {said(error)}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        print(f"asr demo: {error}", file=sys.stderr)
        return 1
    print(f"server: stopped with exit code {server.exit_code}")
    return 0


def demonstrate(address: str, audio: Path, reference: str | None) -> None:
    """Stream a recording twice, at the pace of a microphone and at once; print what came of it."""
    from asr_service.client import Client
    from asr_service.commands.latency import LatencyMeter, SendLog, in_real_time
    from asr_service.commands.live_view import LiveView
    from asr_service.commands.recordings import file_chunks
    from asr_service.commands.stream import CHUNK_S, CHUNK_SAMPLES, show
    from asr_service.config import Settings

    settings = Settings()
    with Client(address) as client:
        log = SendLog(CHUNK_S)
        meter = LatencyMeter(log)
        view = LiveView(sys.stdout, sys.stdout, show_partials=True)
        live = in_real_time(file_chunks(audio, CHUNK_SAMPLES, settings), CHUNK_S)
        print()
        transcript = show(client, log.noted(live), view, meter, mic=False, mode="streaming")
        print()

        started = time.monotonic()
        silent = LiveView(io.StringIO(), io.StringIO(), show_partials=False)
        again = SendLog(CHUNK_S)
        chunks = again.noted(file_chunks(audio, CHUNK_SAMPLES, settings))
        show(client, chunks, silent, LatencyMeter(again), mic=False, mode="streaming")
        elapsed_s = time.monotonic() - started

    print(f"final:            {transcript.strip()}")
    if reference is not None:
        print_errors(reference, transcript)
    for line in meter.lines():
        print(f"latency:          {line}")
    if log.audio_s:
        factor = elapsed_s / log.audio_s
        print(f"real-time factor: {factor:.2f} ({log.audio_s:.1f} s, sent again at once, took {elapsed_s:.1f} s)")


def print_errors(reference: str, transcript: str) -> None:
    from asr_service.evaluation.normalizer import normalize_transcript, normalizer
    from asr_service.evaluation.wer import word_errors

    counts = word_errors(reference, transcript)
    print(f"reference:        {normalize_transcript(reference)}")
    print(
        f"word error rate:  {100 * counts.rate:.1f} % ({counts.substitutions} substituted, {counts.deletions} deleted, "
        f"{counts.insertions} inserted, of {counts.reference_words} words; normaliser {normalizer('basic').label})"
    )
