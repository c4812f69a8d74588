"""`asr bench live MANIFEST...`: live streams by the dozen, at the pace of speech: what holds, how late, how good."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr_service.commands.connection import add_server_options, check_server_options, connection
from asr_service.commands.option_types import NORMALIZERS, positive
from asr_service.commands.output_files import check_output_files
from asr_service.commands.server_process import ServerProcess

if TYPE_CHECKING:
    from asr_service.bench.figures import Figures
    from asr_service.bench.generator import CallRecord, Load
    from asr_service.bench.playlist import Clip
    from asr_service.bench.ramp import Objective
    from asr_service.connection import Connection

ALIGNMENTS = Path.home() / ".cache" / "asr-service" / "alignments"


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "live",
        help="live streams, many at once",
        description="Plays a test set's clips as live streams to a server, by default one that it starts itself, and "
        "prints latencies, errors and cost. Word ends come from a forced alignment of the reference by --model.",
    )
    parser.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST", help="as for `asr eval`")
    parser.add_argument("--corpus", action="append", default=[], help="only this corpus; may be given again")
    server = parser.add_argument_group("server")
    add_server_options(server, "a running server (default: one of its own)")
    server.add_argument("--pid", type=int, help="process of --server on this machine, for CPU and memory")
    server.add_argument("--model", type=Path, metavar="DIR", help="bundle directory (default: the shipped model)")
    server.add_argument("--config", type=Path, metavar="FILE", help="settings of its own server (TOML)")
    server.add_argument("--workers", type=positive, default=1, metavar="N", help="processes of its own server")
    load = parser.add_argument_group("load")
    load.add_argument("--streams", type=_numbers, default=[1, 8, 32], metavar="N,N,...", help="default: 1,8,32")
    load.add_argument("--ramp", action="store_true", help="from the first of --streams up, until the objective breaks")
    load.add_argument("--limit", type=positive, default=256, metavar="N", help="most streams of --ramp; default: 256")
    load.add_argument("--seconds", type=_finite, default=60.0, help="of each load; default: 60")
    load.add_argument("--message-ms", type=positive, default=100, help="audio of a message; default: 100")
    channels = "connections: a number, or the letter N for one a stream (default: 1)"
    load.add_argument("--channels", type=_channels, default=1, metavar="1|N", help=channels)
    load.add_argument("--pause", type=_finite, default=1.5, metavar="S", help="between clips; default: 1.5")
    load.add_argument("--clips-per-call", type=positive, metavar="N", help="default: one call lasts as long as a load")
    load.add_argument("--stagger", type=_finite, default=2.0, metavar="S", help="until all streams run; default: 2")
    figures = parser.add_argument_group("figures")
    figures.add_argument("--word-p95", type=_finite, default=1.5, metavar="S", help="objective; default: 1.5")
    figures.add_argument("--worse-by", type=_finite, default=0.3, metavar="POINTS", help="objective; default: 0.3")
    figures.add_argument("--no-alone", action="store_true", help="do not recognise each call alone to compare errors")
    figures.add_argument("--normalizer", choices=NORMALIZERS, default="basic")
    figures.add_argument("--alignments", type=Path, default=ALIGNMENTS, metavar="DIR", help="where word ends are kept")
    figures.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    figures.add_argument("--png", type=Path, metavar="FILE", help="draw them there (needs matplotlib)")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    from asr_service.bench.ramp import Objective

    _check_usage(arguments)
    objective = Objective(arguments.word_p95, arguments.worse_by)
    try:
        _ask_server(arguments)
        clips = _clips(arguments)
        with _server(arguments) as (address, pid):
            _run(arguments, clips, connection(arguments, address), pid, objective)
    except (OSError, RuntimeError) as error:
        print(f"asr bench live: {error}", file=sys.stderr)
        return 1
    return 0


def _run(
    arguments: argparse.Namespace, clips: Sequence[Clip], server: Connection, pid: int | None, rule: Objective
) -> None:
    from asr_service.bench.output import document, lines, ramp_line, write_json
    from asr_service.bench.plots import write_png
    from asr_service.bench.ramp import ramp

    about = _about(arguments, server)
    print(f"{about['model']}; generator on {about['machine']}, server {about['server']}")
    bench = Bench(arguments, clips, server, pid)
    runs: list[Figures] = []

    def measure(streams: int) -> Figures:
        figures = bench.figures(streams)
        runs.append(figures)
        for line in lines(figures, rule):
            print(line, flush=True)
        if arguments.json:  # what a ramp has found so far stays when it is interrupted
            write_json(arguments.json, document(about, rule, runs, None))
        return figures

    result = None
    if arguments.ramp:
        result = ramp(measure, rule, first=arguments.streams[0], limit=arguments.limit)
        print(ramp_line(result))
    else:
        for streams in arguments.streams:
            measure(streams)
    if arguments.json:
        write_json(arguments.json, document(about, rule, runs, result))
    if arguments.png:
        write_png(arguments.png, runs, rule)


class Bench:
    """Loads of one command on one server; what streams say alone is asked for once."""

    def __init__(
        self, arguments: argparse.Namespace, clips: Sequence[Clip], server: Connection, pid: int | None
    ) -> None:
        self._arguments, self._clips, self._server, self._pid = arguments, clips, server, pid
        self._alone: dict[int, list[CallRecord]] = {}
        self._warm = False

    def figures(self, streams: int) -> Figures:
        """Raises ServiceError where a call alone does not go well."""
        from asr_service.bench.figures import figures
        from asr_service.bench.generator import Load, run_load
        from asr_service.commands.progress import shown

        arguments = self._arguments
        load = Load(
            streams=streams,
            seconds=arguments.seconds,
            message_s=arguments.message_ms / 1000,
            channels=streams if arguments.channels is None else arguments.channels,
            pause_s=arguments.pause,
            clips_per_call=arguments.clips_per_call,
            stagger_s=arguments.stagger if streams > 1 else 0.0,
        )
        alone: list[CallRecord] = []
        if not arguments.no_alone:  # first, so that the server is warm: the first use of anything is slower
            each = shown(range(streams), streams, "streams, each alone")
            alone = [record for stream in each for record in self._stream_alone(load, stream)]
        elif not self._warm:
            self._play(load, [0])
        self._warm = True
        record = asyncio.run(run_load(self._server, self._clips, load, pid=self._pid))
        return figures(record, alone=alone, normalizer=arguments.normalizer)

    def _stream_alone(self, load: Load, stream: int) -> list[CallRecord]:
        if stream not in self._alone:
            self._alone[stream] = self._play(load, [stream])
        return self._alone[stream]

    def _play(self, load: Load, streams: Sequence[int]) -> list[CallRecord]:
        from asr_service.bench.generator import play_alone, stream_calls

        calls = [(stream, call) for stream in streams for call in stream_calls(self._clips, load, stream)]

        async def play() -> list[CallRecord]:
            return [record async for record in play_alone(self._server, calls, load.message_s)]

        records = asyncio.run(play())
        for record in records:
            if record.status != "OK":
                raise RuntimeError(f"a call that was alone ended with {record.status}: {record.message}")
        return records


def _ask_server(arguments: argparse.Namespace) -> None:
    """Raises ConfigError or ServiceError where --server does not answer: aligning the clips first takes minutes."""
    if arguments.server:
        server = connection(arguments, arguments.server)
        with server.client() as client:
            client.server_info(metadata=server.metadata)


def _clips(arguments: argparse.Namespace) -> list[Clip]:
    from asr_service.bench.clips import load_clips, needed
    from asr_service.bench.plots import require_matplotlib
    from asr_service.commands.progress import shown
    from asr_service.config import load_settings
    from asr_service.evaluation.forced_alignment import AlignmentCache, ForcedAligner
    from asr_service.evaluation.references import read_references
    from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR, load_bundle
    from asr_service.model.digest import bundle_digest

    if arguments.png:
        require_matplotlib()
    directory = arguments.model or SHIPPED_DIR / DEFAULT_MODEL
    most = arguments.limit if arguments.ramp else max(arguments.streams)
    references = read_references(arguments.manifests, corpora=arguments.corpus, check_audio=True)
    references = needed(references, seconds=arguments.seconds, streams=most)
    return load_clips(
        shown(references, len(references), "clips"),
        load_settings(arguments.config),
        AlignmentCache(arguments.alignments, bundle_digest(directory)),
        lambda: ForcedAligner(load_bundle(directory)),
    )


@contextlib.contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[tuple[str, int | None]]:
    """Address and process of the server asked for, or of one of our own that has room for all streams."""
    if arguments.server:
        yield arguments.server, arguments.pid
        return
    most = arguments.limit if arguments.ramp else max(arguments.streams)
    options = ["--max-streams", str(most)] + (["--config", str(arguments.config)] if arguments.config else [])
    with ServerProcess(arguments.model, *options, workers=arguments.workers) as server:
        yield server.address, server.pid


def _about(arguments: argparse.Namespace, server: Connection) -> dict[str, str]:
    from asr_service.evaluation.provenance import provenance
    from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR
    from asr_service.model.digest import model_hash

    with server.client() as client:
        info = client.server_info(metadata=server.metadata)
    aligner = model_hash(arguments.model or SHIPPED_DIR / DEFAULT_MODEL)
    # The model that placed the words' ends need not be the server's.
    hashes = {"model_hash": info.models[0].hash, "aligned_by": aligner}
    return (
        provenance(sys.argv[1:])
        | hashes
        | {
            "model": info.models[0].name,
            "server_version": info.version,
            "server": "running already" if arguments.server else f"beside it, {arguments.workers} worker(s)",
        }
    )


def _check_usage(arguments: argparse.Namespace) -> None:
    check_server_options(arguments)
    if arguments.pid is not None and not arguments.server:
        arguments.usage_error("--pid is for --server; of its own server the process is known")
    if arguments.config and arguments.server:
        arguments.usage_error("--config has no effect with --server: it has settings of its own")
    if arguments.workers > 1 and arguments.server:
        arguments.usage_error("--workers has no effect with --server: it runs already")
    if arguments.seconds <= arguments.stagger:
        arguments.usage_error("--seconds must be longer than --stagger: latencies are taken while all streams run")
    if arguments.pause < 0 or arguments.stagger < 0:
        arguments.usage_error("--pause and --stagger must not be below 0")
    most = arguments.limit if arguments.ramp else max(arguments.streams)
    if arguments.channels is not None and arguments.channels > most:
        arguments.usage_error(f"--channels {arguments.channels} is more than the streams there are, {most} at most")
    if arguments.message_ms > 1000:
        arguments.usage_error("--message-ms must be at most 1000")
    check_output_files(
        arguments,
        {"--json": arguments.json, "--png": arguments.png},
        [*arguments.manifests, arguments.config, arguments.ca],
    )


def _numbers(text: str) -> list[int]:
    try:
        return [positive(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers joined by commas, not {text!r}") from None


def _finite(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a finite number, not {text}")
    return number


def _channels(text: str) -> int | None:
    try:
        return None if text == "N" else positive(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or the letter N, not {text!r}") from None
