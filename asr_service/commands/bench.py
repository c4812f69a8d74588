"""`asr bench`: start-up, memory and speed on this machine, as the README quotes them; `asr bench live`: under load."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr_service.commands import bench_live
from asr_service.commands.demo import CLIP
from asr_service.commands.option_types import positive
from asr_service.commands.server_process import ServerProcess

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from asr_service.config import Settings


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="start-up, memory and speed on this machine; `asr bench live`: many live streams at once",
        description="Without a subcommand: start-up, memory and speed.",
    )
    parser.add_argument("--audio", type=Path, default=CLIP, metavar="FILE", help="recording (default: the demo's clip)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="bundle directory (default: the shipped model)")
    rounds = "times that everything is measured; medians are printed"
    parser.add_argument("--rounds", type=positive, default=5, help=rounds)
    streams = "streams at once, in streaming mode"
    parser.add_argument("--streams", type=positive, nargs="*", default=[1, 4, 16], help=streams)
    parser.set_defaults(run=run)
    bench_live.register(parser.add_subparsers(title="subcommands", dest="bench"))


def run(arguments: argparse.Namespace) -> int:
    from asr_service.audio import read_file
    from asr_service.config import EngineSettings, Settings
    from asr_service.errors import InvalidAudio
    from asr_service.evaluation.provenance import machine
    from asr_service.streaming.audio_limits import stream_limits

    settings = Settings(engine=EngineSettings(max_streams=max(arguments.streams, default=1)))
    try:
        pcm = read_file(arguments.audio, limits=stream_limits(settings.audio, settings.stream))
        if not len(pcm):
            raise InvalidAudio(f"{arguments.audio}: there is no audio in it to measure with")
        print(f"machine             {machine()}; one thread")
        _start_up(arguments)
        _speed(arguments, settings, pcm)
    except (OSError, RuntimeError) as error:
        problem = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        print(f"asr bench: {problem}", file=sys.stderr)
        return 1
    return 0


def _start_up(arguments: argparse.Namespace) -> None:
    from asr_service.bench.figures import MIB
    from asr_service.bench.process_usage import usage
    from asr_service.client import Client

    starts, sizes = [], []
    for _ in range(arguments.rounds):
        with ServerProcess(arguments.model) as server:
            starts.append(server.start_s)
            with Client(server.address) as client:
                client.recognize(arguments.audio)
            used = usage(server.pid)
            if used is None:
                raise RuntimeError(f"/proc has nothing of the server's process, {server.pid}")
            sizes.append(used.resident_bytes / MIB)
    print(f"start-up            {statistics.median(starts):.2f} s from process start to serving")
    print(f"resident memory     {statistics.median(sizes):.0f} MiB after one recording")


def _speed(arguments: argparse.Namespace, settings: Settings, pcm: NDArray[np.float32]) -> None:
    from asr_service.engine.load import load_engine
    from asr_service.streaming.transcribe import transcribe_pcm
    from asr_service.types import SAMPLE_RATE_HZ, Mode, RecognitionConfig

    audio_s = len(pcm) / SAMPLE_RATE_HZ
    engine = load_engine(arguments.model, settings=settings.engine)
    engine.start()

    def timed(mode: Mode, streams: int) -> float:
        config = RecognitionConfig(mode=mode)
        begun = time.monotonic()
        with ThreadPoolExecutor(streams) as threads:
            runs = [threads.submit(transcribe_pcm, engine, pcm, config, settings=settings) for _ in range(streams)]
        took_s = time.monotonic() - begun
        for run in runs:
            run.result()  # raises what the stream did: without it there is no figure
        return took_s

    cases = [(Mode.ACCURATE, 1), *((Mode.STREAMING, streams) for streams in arguments.streams)]
    times: dict[tuple[Mode, int], list[float]] = {case: [] for case in cases}
    try:
        timed(Mode.ACCURATE, 1)  # the first use of anything is slower
        for _ in range(arguments.rounds):  # A B A B: what disturbs the machine disturbs all cases alike
            for case in cases:
                times[case].append(timed(*case))
    finally:
        engine.stop()
    for (mode, streams), values in times.items():
        cost = statistics.median(values) / (audio_s * streams)
        print(f"{mode.value:10} x {streams:<4d}   {cost:.4f} s a second of audio ({1 / cost:.0f} s of audio a second)")
