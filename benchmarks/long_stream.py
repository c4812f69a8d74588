"""One stream of hours without a pause: does its state stay bounded, and its lag?

The clips of a test set, their silent ends cut off, go to a server in a process of its own without a gap between them,
`--speed` times as fast as speech (the service slows a client that is too fast, so lag would show all the same). By
section: resident memory, processor time per second of audio, how late words were shown after their audio had been
sent, and the word error rate. The lag's slope is fitted to all words: a bounded state has none.

    python -m benchmarks.long_stream dev.jsonl --minutes 120 --speed 10 --json long.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_service.bench.clips import linear16
from asr_service.bench.figures import percentiles, slope
from asr_service.bench.generator import CallRecord
from asr_service.bench.heard import Heard, heard
from asr_service.bench.pacing import PaceLog, in_real_time
from asr_service.bench.playlist import Call, Clip, Played
from asr_service.bench.process_usage import Usage, usage
from asr_service.client import AsyncClient
from asr_service.commands.server_process import ServerProcess
from asr_service.config import Settings
from asr_service.evaluation.output import Output
from asr_service.evaluation.provenance import provenance
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references import read_references
from asr_service.evaluation.scoring import score
from asr_service.evaluation.waveform import read_waveform

MESSAGE_S = 0.5
USAGE_PERIOD_S = 0.5
FRAME = 160
# Frames quieter than this share of the clip's loud ones are its silent ends; this much of them stays.
QUIET, KEPT_FRAMES = 0.05, 5


def without_ends(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """The clip from just before its first loud frame to just after its last."""
    frames = waveform[: len(waveform) // FRAME * FRAME].reshape(-1, FRAME)
    energy = np.sqrt((frames**2).mean(axis=1))
    loud = np.flatnonzero(energy > QUIET * np.percentile(energy, 95))
    first, last = (loud[0], loud[-1] + 1) if len(loud) else (0, len(frames))
    return waveform[max(0, first - KEPT_FRAMES) * FRAME : (last + KEPT_FRAMES) * FRAME]


def endless_call(references: Sequence[Reference], seconds: float) -> Call:
    """Clips again and again, each pass from another place, until there are `seconds` of them."""
    settings, row, now_s = Settings(), list[Played](), 0.0
    while now_s < seconds:
        reference = references[len(row) * 7 % len(references)]
        clip = Clip(reference, linear16(without_ends(read_waveform(reference, settings))), ())
        row.append(Played(clip, now_s))
        now_s += clip.duration_s
    return Call(tuple(row), 0.0)


async def play(server: ServerProcess, call: Call, speed: float) -> tuple[CallRecord, list[tuple[float, Usage]]]:
    """The call, its times in seconds of audio that had been sent by then, and the server's usage at such times."""
    record, used = CallRecord(0, call, 0.0), list[tuple[float, Usage]]()
    begun = time.monotonic()
    pace = {"message_s": MESSAGE_S / speed, "duration_s": call.duration_s / speed}
    messages = in_real_time(call.messages(MESSAGE_S), begun=begun, log=PaceLog(), **pace)

    async def watch() -> None:
        while (now := usage(server.pid)) is not None:
            used.append(((time.monotonic() - begun) * speed, now))
            await asyncio.sleep(USAGE_PERIOD_S)

    async with AsyncClient(server.address) as client:
        watcher = asyncio.create_task(watch())
        options = {"interim_results": True, "enable_word_time_offsets": True}
        responses = client.stream(messages, encoding="LINEAR16", sample_rate_hertz=16_000, mode="streaming", **options)
        async for response in responses:
            record.note(response, (time.monotonic() - begun) * speed)
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
    return record, used


def report(record: CallRecord, used: Sequence[tuple[float, Usage]], section_s: float, speed: float) -> dict[str, Any]:
    timing = record.display.timing(processing_s=None, audio_s=record.call.duration_s, uncovered_s=())
    words = [
        (word.end_s, late_s / speed) for word, late_s in zip(record.display.words, timing.word_latencies_s, strict=True)
    ]
    clips, rows = heard(record), []
    for begin_s in np.arange(0.0, record.call.duration_s - section_s / 2, section_s).tolist():
        inside = [value for value in used if begin_s <= value[0] < begin_s + section_s]
        lag = percentiles(late_s for end_s, late_s in words if begin_s <= end_s < begin_s + section_s)
        (first_s, first), (last_s, last) = inside[0], inside[-1]
        row = {
            "begin_s": begin_s,
            "resident_mib": last.resident_bytes / 2**20,
            "cpu_per_audio_s": (last.cpu_s - first.cpu_s) / (last_s - first_s),
            "lag_s": None if lag is None else [lag.p50, lag.p95],
            "wer": error_rate([clip for clip in clips if begin_s <= clip.played.start_s < begin_s + section_s]),
        }
        rows.append(row)
        print(
            f"{begin_s / 60:5.0f} min: {row['resident_mib']:.1f} MiB, {row['cpu_per_audio_s']:.4f} s of CPU a second, "
            f"WER {100 * row['wer']:.2f} %" + (f", lag p50 {lag.p50:.3f} s, p95 {lag.p95:.3f} s" if lag else "")
        )
    fitted = slope(words)
    if fitted is not None:
        told = f"{3.6e6 * fitted.per_s:+.2f} ms an hour of audio (standard error {3.6e6 * fitted.error:.2f})"
        print(f"lag slope {told}, at {speed:g} x the pace of speech")
    return {"sections": rows, "lag_slope": None if fitted is None else [fitted.per_s, fitted.error]}


def error_rate(clips: Sequence[Heard]) -> float:
    rows = [Reference(str(number), clip.played.clip.reference.text) for number, clip in enumerate(clips)]
    return score(rows, [Output(row.utterance_id, clip.text) for row, clip in zip(rows, clips, strict=True)]).wer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", type=Path, help="default: the shipped model")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--speed", type=float, default=10.0, help="times the pace of speech")
    parser.add_argument("--section-minutes", type=float, default=10.0)
    parser.add_argument("--corpus", action="append", default=[], help="only this one; may be given again")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    call = endless_call(read_references([arguments.manifest], corpora=arguments.corpus), 60 * arguments.minutes)
    with ServerProcess(arguments.model) as server:
        record, used = asyncio.run(play(server, call, arguments.speed))
    print(f"{call.duration_s / 60:.1f} min in one call, {len(call.clips)} clips, {len(record.finals)} finals")
    found = report(record, used, 60 * arguments.section_minutes, arguments.speed)
    if arguments.json:
        content = {"about": provenance([]), "options": vars(arguments)} | found
        arguments.json.write_text(json.dumps(content, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
