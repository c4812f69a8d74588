"""What a live stream costs the engine, stage by stage, in milliseconds of CPU per second of its audio.

Streams of real speech go through engines in this process, in lockstep. One engine a precision, all in one run, block by
block, so that what else the machine does hits them alike.

    python -m benchmarks.engine_stages ../shared/speech/dev.jsonl --streams 16 --seconds 20 --precisions fp32,bf16
"""

from __future__ import annotations

import argparse
import inspect
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from asr_service.config import LATENCIES, PRECISIONS, EngineSettings
from asr_service.engine.engine import BatchingEngine
from asr_service.engine.interface import Failed, Final, StreamOptions, StreamOutput
from asr_service.engine.runner import ModelRunner
from asr_service.engine.search import UtteranceSearch
from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR, load_bundle
from asr_service.streaming.endpointer import Endpointer
from asr_service.types import EndpointingConfig, Mode
from benchmarks.clocked_engine import clocked_parts

RATE, BLOCK_S, PAUSE_S = 16000, 0.1, 1.2
STAGES: dict[str, tuple[type, str]] = {
    "features": (ModelRunner, "features"),  # where a stage's work is done
    "encoder": (ModelRunner, "encode_chunks"),
    "search": (UtteranceSearch, "step"),
    "partials": (UtteranceSearch, "partial"),
    "finals": (UtteranceSearch, "final_parts"),
}


class StageClock:
    """CPU seconds of this thread by (engine, stage); it stands in for the stages' methods."""

    def __init__(self) -> None:
        self.engine = ""
        self.spent: dict[tuple[str, str], list[float]] = defaultdict(list)
        for stage, (owner, name) in STAGES.items():
            setattr(owner, name, self._timed(getattr(owner, name), stage))

    def _timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            try:
                result = function(*args, **kwargs)
            finally:
                self.spent[self.engine, stage].append(time.thread_time() - start)
            if not inspect.isgenerator(result):
                return result
            spent = self.spent[self.engine, stage]  # all its parts together are one entry
            place = len(spent) - 1

            def spend(seconds: float) -> None:
                spent[place] += seconds

            return clocked_parts(result, spend)

        return timed

    def turn(self, engine: str, action: Callable[..., Any], *args: Any) -> None:
        self.engine = engine
        self._timed(action, "all")(*args)


class LockstepEngine:
    """An engine without its thread, and the outputs of its streams."""

    def __init__(self, settings: EngineSettings, model: Path, streams: int) -> None:
        self.engine = BatchingEngine(load_bundle(model).at(settings.latency), settings)
        self.outputs: list[list[StreamOutput]] = [[] for _ in range(streams)]
        options = StreamOptions(Mode.STREAMING, interim_results=True)
        self._handles = [
            self.engine.open(options, Endpointer(EndpointingConfig()), output.append) for output in self.outputs
        ]

    def feed(self, blocks: Sequence[NDArray[np.float32]] | None) -> None:
        """A block for each stream, or their end."""
        for place, handle in enumerate(self._handles):
            self.engine.finish(handle) if blocks is None else self.engine.audio(handle, blocks[place])
        while self.engine.turn():
            pass

    def transcripts(self) -> list[str]:
        """Of each stream; raises the error of one that failed."""
        for output in self.outputs:
            if isinstance(output[-1], Failed):
                raise output[-1].error
        finals = [[final for final in output if isinstance(final, Final)] for output in self.outputs]
        return [" ".join(word.text for final in each for word in final.alternatives[0].words) for each in finals]


def speech(manifest: Path, streams: int, seconds: float) -> list[NDArray[np.float32]]:
    """So many streams of so many seconds: utterances of the manifest with pauses between them."""
    clips = [json.loads(line)["audio_filepath"] for line in manifest.read_text(encoding="utf-8").splitlines()]
    pause, wanted, used = np.zeros(round(PAUSE_S * RATE), np.float32), round(seconds * RATE), 0
    found = []
    for _ in range(streams):
        parts: list[NDArray[np.float32]] = []
        while sum(map(len, parts)) < wanted:
            parts += [soundfile.read(manifest.parent / clips[used * 7 % len(clips)], dtype="float32")[0], pause]
            used += 1
        found.append(np.concatenate(parts)[:wanted])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", type=Path, default=SHIPPED_DIR / DEFAULT_MODEL)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--latency", choices=LATENCIES, default="balanced")
    parser.add_argument("--precisions", default="fp32,bf16", help=f"of {', '.join(PRECISIONS)}; a name twice is A/A")
    arguments = parser.parse_args()
    pcm = speech(arguments.manifest, arguments.streams, arguments.seconds)
    clock = StageClock()
    engines: dict[str, LockstepEngine] = {}
    for place, precision in enumerate(arguments.precisions.split(",")):
        settings = EngineSettings(max_streams=len(pcm), latency=arguments.latency, precision=precision)
        engines[f"{place}:{precision}"] = LockstepEngine(settings, arguments.model, len(pcm))
    for begin in range(0, len(pcm[0]), round(BLOCK_S * RATE)):
        blocks = [samples[begin : begin + round(BLOCK_S * RATE)] for samples in pcm]
        for name, engine in engines.items():
            clock.turn(name, engine.feed, blocks)
    for name, engine in engines.items():
        clock.turn(name, engine.feed, None)
    audio_s, stages = arguments.streams * arguments.seconds, [*STAGES, "all"]
    print(f"ms of CPU per second of audio, {arguments.streams} streams of {arguments.seconds} s, {arguments.latency}")
    print(f"{'engine':10s}" + "".join(f"{stage:>10s}" for stage in stages) + f"{'final p95 ms':>14s}")
    for name in engines:
        row = "".join(f"{sum(clock.spent[name, stage]) / audio_s * 1000:10.2f}" for stage in stages)
        print(f"{name:10s}{row}{np.percentile(clock.spent[name, 'finals'] or [0.0], 95) * 1000:14.1f}")
    texts = {name: engine.transcripts() for name, engine in engines.items()}
    first = next(iter(texts.values()))
    for name in list(engines)[1:]:
        same = sum(ours == theirs for ours, theirs in zip(texts[name], first, strict=True))
        print(f"{name}: {same} of {len(first)} transcripts as the first engine's")


if __name__ == "__main__":
    main()
