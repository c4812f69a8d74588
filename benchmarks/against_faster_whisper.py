"""Live recognition: our engine against faster-whisper with LocalAgreement-2, the policy of whisper_streaming.

SPEED ONLY: the peer's weights are random, so its tokens are forced: as many as `--tokens-per-s` says of each window.
Both hear the same real speech and use one thread. The peer is given what favours it:

- arrays, no voice activity detection, one window of the encoder a turn, nothing repeated at other temperatures;
- `lean` decodes greedily and without a prompt; `as published` has whisper_streaming's beam of 5 and its prompt, the
  last 200 characters (here 50 tokens); the word times that it needs are left out, for random ones would send it over
  the window again;
- agreement is perfect: all that two windows in a row have heard is committed, and over 15 s the window is cut at the
  last committed end of a sentence (of a recording of the test set), or where there is none, at the last committed word.

Two sizes: Whisper tiny's, and ours (width, heads, layers and vocabulary of the bundle in Whisper's architecture).

    python -m benchmarks.against_faster_whisper dev.jsonl --seconds 20 --rounds 3
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr_service.config import LATENCIES
from asr_service.engine.engine import BatchingEngine
from asr_service.evaluation.provenance import provenance
from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR, load_bundle
from benchmarks.engine_in_process import SAMPLE_RATE_HZ, play, recordings, settings_for
from benchmarks.local_agreement import OPTIONS, Peer, windows
from benchmarks.random_whisper import Dimensions


class Case(NamedTuple):
    """Seconds of audio, and the work on it."""

    audio_s: float
    work: Callable[[], object]


def our_cases(engine: BatchingEngine, audio: Sequence[NDArray[np.float32]], seconds: float) -> dict[str, Case]:
    """All the streams at once, and the first alone."""
    chunk_s = engine.info.chunk_s
    play(engine, [row[: 3 * SAMPLE_RATE_HZ] for row in audio], chunk_s)  # the first use of anything is slower
    return {
        f"ours, {len(audio)} streams": Case(len(audio) * seconds, partial(play, engine, audio, chunk_s)),
        "ours, 1 stream": Case(seconds, partial(play, engine, audio[:1], chunk_s)),
    }


def peer_cases(
    peers: Mapping[str, Peer], audio: NDArray[np.float32], chunks: Sequence[float], seconds: float, sentence_s: float
) -> dict[str, Case]:
    """Each size of the peer, with chunks of so many seconds and each of its options, on one stream."""
    cases = {}
    for (size, peer), chunk_s, options in itertools.product(peers.items(), chunks, OPTIONS):
        turns = windows(seconds, chunk_s, sentence_s)
        peer.listen(audio, turns[:1], options)  # the first use of anything is slower
        work = partial(peer.listen, audio, turns, options)
        cases[f"peer, {size}, chunks of {chunk_s:g} s, {options}"] = Case(seconds, work)
    return cases


def measured(cases: Mapping[str, Case], rounds: int) -> dict[str, list[float]]:
    """Seconds of CPU a second of audio of each case, round by round: A B A B."""
    costs: dict[str, list[float]] = {name: [] for name in cases}
    for _, (name, case) in itertools.product(range(rounds), cases.items()):
        begun = time.process_time()
        case.work()
        costs[name].append((time.process_time() - begun) / case.audio_s)
        print(f"{name:45} {costs[name][-1]:.4f} s of CPU a second of audio", flush=True)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", type=Path, default=SHIPPED_DIR / DEFAULT_MODEL)
    parser.add_argument("--latency", choices=LATENCIES, default="balanced")
    parser.add_argument("--streams", type=int, default=16, help="of ours at once; the peer serves one at a time")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each stream")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunks", type=float, nargs="*", help="the peer's; default: ours, and 1 s as is its default")
    parser.add_argument("--tokens-per-s", type=float, default=3.0)
    parser.add_argument("--sentence-s", type=float, default=5.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()

    bundle = load_bundle(arguments.model).at(arguments.latency)
    engine = BatchingEngine(bundle, settings_for(arguments.latency, arguments.streams).engine)
    engine.start()
    audio = recordings(arguments.manifest, arguments.streams, arguments.seconds)
    chunks, seconds = arguments.chunks or (engine.info.chunk_s, 1.0), arguments.seconds
    config = bundle.model.config
    ours = Dimensions(
        config.d_model, config.n_heads, config.encoder_layers, config.decoder_layers, config.ffn_dim, config.vocab_size
    )
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"tiny": Dimensions(), "our size": ours}
        peers = {name: Peer(Path(folder) / name, size, arguments.tokens_per_s) for name, size in sizes.items()}
        cases = our_cases(engine, audio, seconds) | peer_cases(peers, audio[0], chunks, seconds, arguments.sentence_s)
        costs = measured(cases, arguments.rounds)
    engine.stop()
    print(
        f"\nSPEED ONLY (the peer's weights are random); int8 peer, {arguments.latency}; medians of {arguments.rounds}"
    )
    medians = {name: statistics.median(values) for name, values in costs.items()}
    best = next(iter(medians.values()))
    for name, value in medians.items():
        print(f"{name:45} {value:.4f} s of CPU a second of audio, {value / best:6.1f} x ours")
    for size, peer in peers.items():
        print(f"{size}: {peer.made} tokens made, {peer.asked} asked for")
    if arguments.json:
        content = {"about": provenance([]), "options": vars(arguments), "costs": costs, "medians": medians}
        arguments.json.write_text(json.dumps(content, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
