"""What the encoder's cache and the batch are each worth: the engine against itself with one of them off.

- batched: N streams at once, every chunk encoded once (what is served);
- one by one: the same N recordings, one stream at a time;
- uncached: N streams at once, but each chunk encodes its utterance from the beginning, as a model without caches must;
  the search is the same and goes on from frame to frame. All of the utterance attends to all of it, which no cache
  could do: its words are not those of the other two.

Real speech, in this process, without sockets; rounds A B C A B C, ratios of medians.

    python -m benchmarks.without_cache_or_batch dev.jsonl --streams 16 --seconds 30 --rounds 3
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_service.config import LATENCIES, EngineSettings
from asr_service.engine.engine import BatchingEngine
from asr_service.engine.interface import StreamOptions
from asr_service.engine.live import ChunkedDecoder, ChunkedPolicy
from asr_service.engine.runner import Encoded, ModelRunner
from asr_service.engine.search import UtteranceSearch
from asr_service.engine.search_space import SearchSpace
from asr_service.evaluation.provenance import provenance
from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR, Bundle, load_bundle
from benchmarks.clocked_engine import Clocked, Spent
from benchmarks.engine_in_process import play, recordings, settings_for


class UncachedDecoder(ChunkedDecoder):
    """Tells its policy when an utterance is over."""

    def __init__(self, search: UtteranceSearch, forget: Callable[[], None]) -> None:
        super().__init__(search)
        self._forget = forget

    def reset(self) -> None:
        super().reset()
        self._forget()


class UncachedPolicy(ChunkedPolicy):
    """Keeps an utterance's features where `ChunkedPolicy` keeps the encoder's state; encodes them from the start."""

    def __init__(self, runner: ModelRunner, space: SearchSpace) -> None:
        super().__init__(runner, space)
        self._utterances: dict[int, NDArray[np.float32]] = {}

    def decoders(self, options: StreamOptions) -> Callable[[int], UncachedDecoder]:
        search = self._space.searches(options)
        return lambda slot: UncachedDecoder(search(), lambda: self._utterances.pop(slot, None))

    def encode(self, slots: Sequence[int], inputs: Sequence[NDArray[np.float32]], kept: Sequence[int]) -> list[Encoded]:
        none = np.zeros((0, inputs[0].shape[1]), dtype=np.float32)
        before = [self._utterances.get(slot, none) for slot in slots]
        whole = [np.concatenate([early, chunk]) for early, chunk in zip(before, inputs, strict=True)]
        encoded = self._runner.encode_utterances(whole)
        config = self._runner.bundle.model.config
        frames = config.subsampling, config.output_subsampling  # of phones and of pieces, in feature frames
        answer = []
        for slot, early, features, keep, row in zip(slots, before, whole, kept, encoded, strict=True):
            self._utterances[slot] = features[: len(early) + keep]
            # Those that begin in what this step keeps; what is after them was looked ahead at.
            of_phones, of_pieces = (slice(-(-len(early) // n), -(-(len(early) + keep) // n)) for n in frames)
            ahead = row.phones[of_phones.stop :]
            answer.append(Encoded(row.phones[of_phones], row.pieces[of_pieces], row.hidden[of_pieces], ahead))
        return answer


def uncached_engine(bundle: Bundle, settings: EngineSettings) -> BatchingEngine:
    engine = BatchingEngine(bundle, settings)
    engine._live._policy = UncachedPolicy(engine._runner, engine._space)  # noqa: SLF001 -- nobody would serve it
    return engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", type=Path, default=SHIPPED_DIR / DEFAULT_MODEL)
    parser.add_argument("--latency", choices=LATENCIES, default="balanced")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each stream")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()

    settings = settings_for(arguments.latency, arguments.streams)
    bundle = load_bundle(arguments.model).at(arguments.latency)
    audio = recordings(arguments.manifest, arguments.streams, arguments.seconds)
    cached, without = BatchingEngine(bundle, settings.engine), uncached_engine(bundle, settings.engine)
    clocks = {engine: Clocked(engine) for engine in (cached, without)}
    block_s = cached.info.chunk_s
    cases: dict[str, tuple[BatchingEngine, Callable[[], list[str]]]] = {
        "batched": (cached, lambda: play(cached, audio, block_s)),
        "one by one": (cached, lambda: [play(cached, [row], block_s)[0] for row in audio]),
        "uncached": (without, lambda: play(without, audio, block_s)),
    }
    spent: dict[str, list[Spent]] = {name: [] for name in cases}
    texts: dict[str, list[str]] = {}
    for engine in (cached, without):
        engine.start()
        play(engine, [row[: 16_000 * 3] for row in audio], block_s)  # the first use of anything is slower
    for number in range(arguments.rounds):
        for name, (engine, work) in cases.items():
            texts[name], took = clocks[engine].measure(work)
            spent[name].append(took)
            print(f"round {number + 1}, {name:10}  {took.cpu_s:7.2f} s of CPU, {took.wall_s:7.2f} s", flush=True)
    for engine in (cached, without):
        engine.stop()
    audio_s = arguments.streams * arguments.seconds
    report(spent, texts, audio_s, f"{arguments.streams} streams of {arguments.seconds:g} s, {arguments.latency}")
    if arguments.json:
        rounds = {name: [vars(one) for one in values] for name, values in spent.items()}
        content = {"about": provenance([]), "options": vars(arguments), "audio_s": audio_s, "rounds": rounds}
        arguments.json.write_text(json.dumps(content, indent=1, default=str) + "\n")


def report(spent: dict[str, list[Spent]], texts: dict[str, list[str]], audio_s: float, what: str) -> None:
    print(f"\n{what}; medians, CPU milliseconds a second of audio of a stream")
    for name, rounds in spent.items():
        parts = {part: statistics.median(one.parts.get(part, 0.0) for one in rounds) for part in rounds[0].parts}
        total = statistics.median(one.cpu_s for one in rounds)
        parts["the rest"] = total - sum(parts.values())
        shares = ", ".join(f"{part} {1000 * value / audio_s:.2f}" for part, value in parts.items())
        same = sum(text == first for text, first in zip(texts[name], texts["batched"], strict=True))
        print(
            f"{name:10}  {1000 * total / audio_s:6.2f}: {shares}; {same} of {len(texts[name])} transcripts as batched"
        )
    for name, what in (("one by one", "batching"), ("uncached", "caching")):
        cpu, wall = (
            statistics.median(getattr(one, unit) for one in spent[name])
            / statistics.median(getattr(one, unit) for one in spent["batched"])
            for unit in ("cpu_s", "wall_s")
        )
        print(f"{what}: throughput x {cpu:.2f} by CPU time, x {wall:.2f} by the wall clock")


if __name__ == "__main__":
    main()
