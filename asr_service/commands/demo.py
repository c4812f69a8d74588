"""`asr demo [AUDIO]`: the service at work, in one command.

Starts a server in a process of its own, streams a clip to it at the pace of a microphone, shows the words as they
come, and says how good and how fast they were.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from asr_service.commands.serve import SERVER
from asr_service.commands.wording import readable, said
from asr_service.parent_process import end_with_parent

SAMPLES = Path(__file__).parents[1] / "samples"
CLIP = SAMPLES / "demo.flac"
REFERENCE = SAMPLES / "demo.txt"
# The first start after the installation compiles the search, which takes minutes beside other work on a slow machine.
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 20.0
KEPT_LOG_LINES = 50


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


class ServerProcess:
    """`asr serve` on a free port, from its "serving" log line on until the block ends; then SIGTERM.

    On Linux it ends, too, where this process is killed or the thread that began the block ends. `options` are further
    options of `asr serve`; with several `workers` all of them serve before the block begins.
    Raises RuntimeError with the end of the server's log when it does not come to serve.
    """

    def __init__(self, model: Path | None, *options: str, workers: int = 1) -> None:
        command = [*SERVER, "--address", "localhost:0", *options]
        command += ["--workers", str(workers)] if workers > 1 else []
        self._to_come = workers
        self._command = command if model is None else [*command, "--model", str(model)]
        self._log: deque[str] = deque(maxlen=KEPT_LOG_LINES)
        self._serving = threading.Event()
        self.address = self.model = ""
        self.start_s = 0.0
        self.exit_code: int | None = None

    def __enter__(self) -> ServerProcess:
        started = time.monotonic()
        self._process = subprocess.Popen(
            self._command,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509  # it takes no lock that a thread of ours may hold
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self._serving.wait(START_TIMEOUT_S)
        if self._to_come:
            self._stop()
            raise RuntimeError("the server did not start:\n" + "".join(self._log))
        self.start_s = time.monotonic() - started
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._log.append(line)
                with contextlib.suppress(ValueError, AttributeError):  # a traceback, not one of our JSON lines
                    fields = json.loads(line)
                    if fields.get("message") == "serving":
                        self.address, self.model = f"localhost:{fields['port']}", fields["model"]
                        self._to_come = max(0, self._to_come - 1)
                        if not self._to_come:
                            self._serving.set()
        self._serving.set()  # it has ended

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self.exit_code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.exit_code = self._process.wait()
        self._reader.join()
