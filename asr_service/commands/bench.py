"""`asr bench`: start-up, memory and speed on this machine, as the README quotes them; `asr bench live`: under load."""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from asr_service.commands import bench_live
from asr_service.commands.demo import CLIP, ServerProcess


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="start-up, memory and speed on this machine; `asr bench live`: many live streams at once",
        description="Without a subcommand: start-up, memory and speed.",
    )
    parser.add_argument("--audio", type=Path, default=CLIP, metavar="FILE", help="recording (default: the demo's clip)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="bundle directory (default: the shipped model)")
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is measured; medians are printed")
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 4, 16], help="streams at once, in streaming mode")
    parser.set_defaults(run=run)
    bench_live.register(parser.add_subparsers(title="subcommands", dest="bench"))


def run(arguments: argparse.Namespace) -> int:
    from asr_service.evaluation.provenance import machine

    print(f"machine             {machine()}; one thread")
    _start_up(arguments)
    _speed(arguments)
    return 0


def _start_up(arguments: argparse.Namespace) -> None:
    from asr_service.client import Client

    starts, sizes = [], []
    for _ in range(arguments.rounds):
        with ServerProcess(arguments.model) as server:
            starts.append(server.start_s)
            with Client(server.address) as client:
                client.recognize(arguments.audio)
            sizes.append(_resident_mib(server.pid))
    print(f"start-up            {statistics.median(starts):.2f} s from process start to serving")
    print(f"resident memory     {statistics.median(sizes):.0f} MiB after one recording")


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


def _speed(arguments: argparse.Namespace) -> None:
    from asr_service.audio import SAMPLE_RATE_HZ, read_file
    from asr_service.config import Settings
    from asr_service.engine.load import load_engine
    from asr_service.streaming.audio_limits import stream_limits
    from asr_service.streaming.transcribe import transcribe_pcm
    from asr_service.types import Mode, RecognitionConfig

    settings = Settings()
    pcm = read_file(arguments.audio, limits=stream_limits(settings.audio, settings.stream))
    audio_s = len(pcm) / SAMPLE_RATE_HZ
    engine = load_engine(arguments.model, settings=settings.engine)
    engine.start()

    def timed(mode: Mode, streams: int) -> float:
        def one() -> None:
            transcribe_pcm(engine, pcm, RecognitionConfig(mode=mode), settings=settings)

        threads = [threading.Thread(target=one) for _ in range(streams)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - begun

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
