"""`asr transcribe FILE...`: the words of recordings, in process or by a server."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from asr_service.commands.connection import add_server_options, check_server_options, connection
from asr_service.commands.formats import FORMATS, Transcript, render
from asr_service.commands.hints import add_hint_options, hint_fields, hint_groups
from asr_service.commands.option_types import STDIN, recording
from asr_service.commands.output_files import check_output_files
from asr_service.commands.wording import readable, said
from asr_service.errors import AsrError
from asr_service.types import RecognitionResult

Recognise = Callable[[Path], Iterable[RecognitionResult]]


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "transcribe",
        help="the words of recordings",
        description="Writes the words of recordings to stdout: in text one line a file, in order. A file that cannot "
        "be recognised is named on stderr and has no line, or the words before the damage; the others are still done, "
        "and the exit code is 1.",
    )
    formats = "WAV, FLAC, Ogg Opus or Vorbis, MP3; - is stdin"
    parser.add_argument("files", nargs="+", type=recording, metavar="FILE", help=formats)
    parser.add_argument("--mode", choices=("accurate", "streaming"), default="accurate", help="default: accurate")
    add_server_options(parser, "let a running server do it (default: in process)")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text; json is one object a line")
    parser.add_argument("--model", type=Path, metavar="DIR", help="bundle directory (default: the shipped model)")
    parser.add_argument(
        "--channel", type=int, default=0, metavar="N", help="only this channel, from 1 (default: mixed)"
    )
    add_hint_options(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there rather than to stdout")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    if arguments.format in ("srt", "vtt") and len(arguments.files) > 1:
        arguments.usage_error(f"--format {arguments.format} takes one FILE: subtitles of several cannot be told apart")
    if arguments.server and arguments.model:
        arguments.usage_error("--model has no effect with --server: it is the server that has the model")
    if arguments.server and arguments.config:
        arguments.usage_error("--config has no effect with --server: it is the server that has the settings")
    if arguments.files.count(STDIN) > 1:
        arguments.usage_error("- is stdin, which can be read once only")
    _check_channel(arguments)
    check_server_options(arguments)
    files = [Path("/dev/stdin") if path == STDIN else path for path in arguments.files]
    check_output_files(arguments, {"--output": arguments.output}, [*files, arguments.config, arguments.ca])
    hint_groups(arguments)
    failures: list[Path] = []

    def transcripts(recognise: Recognise) -> Iterator[Transcript]:
        for path in arguments.files:
            finals: list[RecognitionResult] = []
            failure = ""
            try:
                for result in recognise(path):
                    finals.append(result)  # noqa: PERF402  # kept where the next one is an error
            except (AsrError, OSError) as error:
                failure = said(error)
            if finals or not failure:
                yield Transcript(readable(path), arguments.mode, tuple(finals), failure)
            if failure:
                print(f"asr transcribe: {readable(path)}: {failure}", file=sys.stderr)
                failures.append(path)

    recogniser = _by_server if arguments.server else _in_process
    with recogniser(arguments) as recognise, _output(arguments.output) as output:
        for line in render(transcripts(recognise), arguments.format):
            print(line, file=output, flush=True)
    return 1 if failures else 0


def _check_channel(arguments: argparse.Namespace) -> None:
    from asr_service.audio import MAX_CHANNELS

    if not 0 <= arguments.channel <= MAX_CHANNELS:
        arguments.usage_error(f"--channel is {arguments.channel}, must be 1 to {MAX_CHANNELS}")


@contextlib.contextmanager
def _in_process(arguments: argparse.Namespace) -> Iterator[Recognise]:
    from asr_service.commands.recordings import file_bytes
    from asr_service.config import load_settings
    from asr_service.engine.load import load_engine
    from asr_service.errors import Unsupported
    from asr_service.streaming.phrase_hints import phrase_hints
    from asr_service.streaming.transcribe import stream_bytes
    from asr_service.types import Mode, RecognitionConfig

    settings = load_settings(arguments.config)
    channel = arguments.channel - 1 if arguments.channel else None
    config = RecognitionConfig(
        mode=Mode(arguments.mode),
        channel=channel,
        phrase_hints=phrase_hints(hint_groups(arguments), settings.phrase_hints),
    )
    # One recording after the other: caches for one stream are enough.
    engine = load_engine(arguments.model, settings=dataclasses.replace(settings.engine, max_streams=1))
    if config.phrase_hints and "phrase_hints" not in engine.info.features:
        raise Unsupported(f"--phrase: model {engine.info.model} does not offer phrase hints")
    engine.start()

    def recognise(path: Path) -> Iterator[RecognitionResult]:
        # Of a recording that failed, the engine's thread frees the slot some moments later.
        while engine.active_streams and engine.healthy:
            time.sleep(0.01)
        for update in stream_bytes(engine, file_bytes(path), config, settings=settings):
            yield from (result for result in update.results if result.is_final)

    try:
        yield recognise
    finally:
        engine.stop()


@contextlib.contextmanager
def _by_server(arguments: argparse.Namespace) -> Iterator[Recognise]:
    from asr_service.commands.recordings import file_bytes
    from asr_service.commands.remote import finals_of_stream

    with connection(arguments, arguments.server).client() as client:
        # A stream rather than a unary call, in either mode: recordings may be long.
        yield lambda path: finals_of_stream(
            client,
            file_bytes(path),
            mode=arguments.mode,
            audio_channel=arguments.channel,
            phrase_hints=hint_fields(arguments),
            metadata=arguments.metadata,
        )


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[Any]:
    if path is None:
        yield sys.stdout
    else:
        try:
            with path.open("w", encoding="utf-8") as file:
                yield file
        except OSError as error:
            raise AsrError(f"cannot write {readable(path)}: {error.strerror}") from error
