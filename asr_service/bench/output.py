"""Figures as lines for people and as JSON. Of a load whose generator was late no latency is told as the server's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asr_service.bench.figures import MAX_LATE_S, SHORT_PAUSE_S, SILENCE_S, Figures, Percentiles
from asr_service.bench.ramp import Objective, RampResult
from asr_service.errors import ConfigError
from asr_service.evaluation.result import NO_INTERVAL

SCHEMA_VERSION = 1
# The column of labels is as wide as the longest of them.
_LABEL = 29
# In less, lag has no slope worth telling.
_SLOPE_FROM_S = 60.0


def lines(figures: Figures, objective: Objective) -> Iterator[str]:
    """Of one load."""
    others = "".join(f", {count} {status}" for status, count in sorted(figures.failed.items()))
    yield (
        f"{_counted(figures.streams, 'stream')} for {figures.seconds:g} s, messages of "
        f"{1000 * figures.message_s:g} ms on {_counted(figures.channels, 'connection')}: "
        f"{figures.held} held, {figures.refused} refused{others}"
    )
    if figures.valid:
        yield from _latency_lines(figures)
    else:
        yield "  INVALID: the generator was late itself, so its latencies are not the server's"
    if figures.revoked_share is not None:
        yield (
            f"  {'revoked / emitted words':{_LABEL}} {figures.revoked_words} / {figures.emitted_words} "
            f"({100 * figures.revoked_share:.1f} %)"
        )
    if figures.utterances:
        share = 100 * figures.short_splits / figures.utterances
        yield (
            f"  {f'cut at a pause under {SHORT_PAUSE_S:g} s':{_LABEL}} {figures.short_splits} / "
            f"{_counted(figures.utterances, 'utterance')} ({share:.1f} %)"
        )
    yield from _quality_lines(figures)
    if figures.cost is not None:
        cost = figures.cost
        yield (
            f"  {'server, for each stream':{_LABEL}} {cost.cpu_per_audio_s:.4f} s of CPU a second of audio; resident "
            f"{cost.resident_mib:.0f} MiB before, {cost.most_resident_mib:.0f} MiB at most"
        )
    late, held = figures.generator_late, figures.server_held
    taken_late = f", {held.count} of them taken late by the call: {_row(held)}" if held is not None else ""
    yield (
        f"  {'generator':{_LABEL}} late {_row(late)} (valid up to p99 {MAX_LATE_S:g} s); "
        f"{_counted(figures.messages, 'message')}{taken_late}"
    )
    if figures.generator_cpu_per_audio_s is not None:
        share = 100 * figures.generator_cpu_per_audio_s
        placed = figures.streams - figures.refused
        yield f"  {'generator, for each stream':{_LABEL}} {share:.3f} % of a core, {share * placed:.1f} % for all"
    if figures.valid:
        broken = objective.broken(figures)
        yield f"  {'objective':{_LABEL}} {'broken: ' + '; '.join(broken) if broken else 'holds'}"


def _latency_lines(figures: Figures) -> Iterator[str]:
    for name, values in (
        ("partial after its first word", figures.first_partial),
        ("word", figures.word),
        ("final after its last word", figures.final),
        (f"final after {1000 * SILENCE_S:g} ms of silence", figures.final_after_silence),
        ("final after the endpoint", figures.final_after_endpoint),
        ("final after the half-close", figures.final_after_close),
    ):
        yield f"  {name:{_LABEL}} {_row(values)}{f' ({values.count})' if values is not None else ''}"
    if figures.slope is not None and figures.seconds >= _SLOPE_FROM_S:
        per_minute, error = 60_000 * figures.slope.per_s, 60_000 * figures.slope.error
        yield f"  {'lag slope':{_LABEL}} {per_minute:+.1f} ms a minute (standard error {error:.1f})"


def _quality_lines(figures: Figures) -> Iterator[str]:
    quality = figures.quality
    if quality is None:
        yield f"  {'WER':{_LABEL}} none: no stream that held has played a word of a reference"
        return
    between, drawn = "", NO_INTERVAL
    if quality.low is not None and quality.high is not None:
        between = f" [{100 * quality.low:.2f}, {100 * quality.high:.2f}]"
        drawn = f"95 % bootstrap over {quality.over}, repetitions as one"
    yield (
        f"  {'WER':{_LABEL}} {100 * quality.wer:.2f} %{between}, "
        f"{_counted(quality.errors, 'error')} of {_counted(quality.reference_words, 'word')} in "
        f"{_counted(quality.clips, 'clip')} ({quality.different} different); {quality.normalizer}, {drawn}"
    )
    if quality.alone_wer is not None and quality.changed is not None:
        yield (
            f"  {'the same calls, each alone':{_LABEL}} {100 * quality.alone_wer:.2f} %: "
            f"{quality.worse_by:+.2f} points by the load, {_counted(quality.changed, 'clip')} with other words"
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _row(values: Percentiles | None) -> str:
    if values is None:
        return "none"
    return f"p50 {values.p50:.3f} s, p95 {values.p95:.3f} s, p99 {values.p99:.3f} s"


def ramp_line(result: RampResult) -> str:
    """The ramp's result."""
    if result.generator_late_at is not None:
        return (
            f"the generator was late at {_counted(result.generator_late_at, 'stream')}; {result.largest} held. "
            "More needs a faster generator: another machine, or longer messages"
        )
    if result.broke_at is None:
        return f"{_counted(result.largest, 'stream')} held, and no more were tried"
    return f"{_counted(result.largest, 'stream')} held; at {result.broke_at} the objective broke"


def document(
    about: Mapping[str, str], objective: Objective, runs: Sequence[Figures], result: RampResult | None
) -> dict[str, Any]:
    """All of it as plain data; what was not measured is null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "about": dict(about),
        "objective": asdict(objective),
        "ramp": asdict(result) if result is not None else None,
        "runs": [
            asdict(run)
            | {
                "valid": run.valid,
                "revoked_share": run.revoked_share,
                "worse_by_points": run.quality.worse_by if run.quality is not None else None,
                "broken": objective.broken(run),
            }
            for run in runs
        ],
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Raises ConfigError where the file cannot be written."""
    try:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
