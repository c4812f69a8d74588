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
from collections.abc import Callable
from pathlib import Path

from asr_service.config import LATENCIES
from asr_service.engine.engine import BatchingEngine
from asr_service.evaluation.provenance import provenance
from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR, load_bundle
from benchmarks.engine_in_process import SAMPLE_RATE_HZ, play, recordings, settings_for
from benchmarks.local_agreement import OPTIONS, Peer, windows
from benchmarks.random_whisper import Dimensions


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

    bundle = load_bundle(arguments.model)
    engine = BatchingEngine(bundle, settings_for(arguments.latency, arguments.streams).engine)
    engine.start()
    audio = recordings(arguments.manifest, arguments.streams, arguments.seconds)
    chunk_s, seconds = engine.info.chunk_s, arguments.seconds
    config = bundle.model.config
    ours = Dimensions(
        config.d_model, config.n_heads, config.encoder_layers, config.decoder_layers, config.ffn_dim, config.vocab_size
    )
    with tempfile.TemporaryDirectory() as folder:
        cases: dict[str, tuple[float, Callable[[], object]]] = {  # name: (seconds of audio, work)
            f"ours, {arguments.streams} streams": (arguments.streams * seconds, lambda: play(engine, audio, chunk_s)),
            "ours, 1 stream": (seconds, lambda: play(engine, audio[:1], chunk_s)),
        }
        peers = {}
        for size, dimensions in (("tiny", Dimensions()), ("our size", ours)):
            peers[size] = peer = Peer(Path(folder) / size, dimensions, arguments.tokens_per_s)
            for hop_s, options in itertools.product(arguments.chunks or (chunk_s, 1.0), OPTIONS):
                turns = windows(seconds, hop_s, arguments.sentence_s)
                cases[f"peer, {size}, chunks of {hop_s:g} s, {options}"] = (
                    seconds,
                    lambda peer=peer, turns=turns, options=options: peer.listen(audio[0], turns, options),  # type: ignore[misc]
                )
                peer.listen(audio[0], turns[:1], options)  # the first use of anything is slower
        play(engine, [row[: 3 * SAMPLE_RATE_HZ] for row in audio], chunk_s)
        costs: dict[str, list[float]] = {name: [] for name in cases}
        for _, (name, (audio_s, work)) in itertools.product(range(arguments.rounds), cases.items()):  # A B A B
            begun = time.process_time()
            work()
            costs[name].append((time.process_time() - begun) / audio_s)
            print(f"{name:45} {costs[name][-1]:.4f} s of CPU a second of audio", flush=True)
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
