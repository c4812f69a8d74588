"""`asr stream FILE|--mic`: words while somebody speaks, by a server."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr_service.commands.connection import add_server_options, check_server_options, connection
from asr_service.commands.hints import add_hint_options, hint_fields
from asr_service.commands.latency import LatencyMeter, SendLog, in_real_time
from asr_service.commands.live_view import LiveView
from asr_service.commands.option_types import recording
from asr_service.commands.wording import readable, said
from asr_service.errors import AsrError, InvalidAudio
from asr_service.types import SAMPLE_RATE_HZ, RecognitionResult

CHUNK_SAMPLES = 640
CHUNK_S = CHUNK_SAMPLES / SAMPLE_RATE_HZ


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "stream",
        help="words while somebody speaks",
        description="Streams a file or the microphone to a server, by default one in this process. Finals go to "
        "stdout, partial words and the latency to stderr.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    formats = "WAV, FLAC, Ogg Opus or Vorbis, MP3; - is stdin"
    source.add_argument("file", nargs="?", type=recording, metavar="FILE", help=formats)
    source.add_argument("--mic", action="store_true", help="the microphone, until Ctrl-C (needs sounddevice)")
    parser.add_argument("--simulate-realtime", action="store_true", help="send a file at the pace of a microphone")
    partials = "show words before they are final; those before a | stay"
    parser.add_argument("--show-partials", action="store_true", help=partials)
    parser.add_argument("--mode", choices=("accurate", "streaming"), default="streaming", help="default: streaming")
    add_hint_options(parser)
    add_server_options(parser, "a running server (default: one in this process)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="bundle directory (default: the shipped model)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    if arguments.server and arguments.model:
        arguments.usage_error("--model has no effect with --server: it is the server that has the model")
    if arguments.show_partials and arguments.mode == "accurate":
        arguments.usage_error("--show-partials has no effect with --mode accurate: it has no partial words")
    if arguments.mic and arguments.simulate_realtime:
        arguments.usage_error("--simulate-realtime has no effect with --mic: a microphone has that pace")
    check_server_options(arguments)
    hints = hint_fields(arguments)
    live = arguments.mic or arguments.simulate_realtime
    log = SendLog(CHUNK_S)
    meter = LatencyMeter(log)
    view = LiveView(sys.stdout, sys.stderr, show_partials=arguments.show_partials)
    name = "microphone" if arguments.mic else readable(arguments.file)
    with _server(arguments) as address, connection(arguments, address).client() as client, _until_interrupted() as stop:
        started = time.monotonic()
        failures: list[AsrError | OSError] = []
        try:
            chunks = log.noted(_until_damage(_chunks(arguments, stop), failures, stop))
            options = {"phrase_hints": hints, "metadata": arguments.metadata}
            show(client, chunks, view, meter, mic=arguments.mic, mode=arguments.mode, **options)
        except (AsrError, OSError) as error:
            failures.append(error)
        if failures:
            print(f"asr stream: {name}: {said(failures[0])}", file=sys.stderr)
            return 1
        elapsed_s = time.monotonic() - started
    if live:
        for line in meter.lines():
            print(line, file=sys.stderr)
    elif log.audio_s:
        factor = elapsed_s / log.audio_s
        print(f"{log.audio_s:.1f} s of audio in {elapsed_s:.1f} s: real-time factor {factor:.2f}", file=sys.stderr)
    return 0


def show(
    client: Any, chunks: Iterator[bytes], view: LiveView, meter: LatencyMeter, *, mic: bool, mode: str, **options: Any
) -> str:
    """Stream chunks and show what comes; return the transcript. Raises ServiceError, and what `chunks` raises."""
    from asr_service.client import result_of

    responses = client.stream(
        chunks,
        encoding="LINEAR16" if mic else "FLOAT32",
        sample_rate_hertz=SAMPLE_RATE_HZ,
        mode=mode,
        interim_results=mode == "streaming",
        enable_word_time_offsets=True,
        **options,
    )
    finals: list[str] = []
    for response in responses:
        interims: dict[bool, str] = {}  # by whether they stay
        for received in response.results:
            result: RecognitionResult = result_of(received)
            meter.note(result)
            text = result.alternatives[0].text
            if result.is_final:
                view.final(text)
                finals.append(text)
            else:
                interims[result.stability >= 0.9] = text
        if interims:  # also without a word: what was shown has turned out to be none
            stable, tail = interims.get(True, ""), interims.get(False, "")
            view.partial(stable, f" {tail}" if stable and tail else tail)
    view.clear()
    return " ".join(finals)


def _chunks(arguments: argparse.Namespace, stop: threading.Event) -> Iterator[bytes]:
    from asr_service.commands.microphone import microphone_chunks
    from asr_service.commands.recordings import file_chunks
    from asr_service.config import load_settings

    if arguments.mic:
        return microphone_chunks(CHUNK_SAMPLES, stop)
    chunks = file_chunks(arguments.file, CHUNK_SAMPLES, load_settings(arguments.config), stop)
    if arguments.simulate_realtime:
        return in_real_time(chunks, CHUNK_S, stop)
    return itertools.takewhile(lambda _: not stop.is_set(), chunks)


def _until_damage(
    chunks: Iterator[bytes], failures: list[AsrError | OSError], stop: threading.Event
) -> Iterator[bytes]:
    """Chunks as they come; what they end with is noted, so that the words before it still become final."""
    try:
        yield from chunks
    except (AsrError, OSError) as error:
        if not (stop.is_set() and isinstance(error, InvalidAudio)):  # stdin that is stopped is cut off, not damaged
            failures.append(error)


@contextlib.contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[str]:
    """The address of the server asked for, or of one in this process."""
    if arguments.server:
        yield arguments.server
        return
    from asr_service.config import load_settings
    from asr_service.engine.load import load_engine
    from asr_service.server.app import ServerThread

    settings = load_settings(arguments.config)
    settings = dataclasses.replace(
        settings,
        server=dataclasses.replace(settings.server, address="localhost:0", drain_s=0.0),
        engine=dataclasses.replace(settings.engine, max_streams=1),
    )
    with ServerThread(settings, lambda: load_engine(arguments.model, settings=settings.engine)) as address:
        yield address


@contextlib.contextmanager
def _until_interrupted() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets the first time: the client half-closes, and what was said still becomes final."""
    stop = threading.Event()

    def on_interrupt(number: int, frame: Any) -> None:  # noqa: ARG001
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
