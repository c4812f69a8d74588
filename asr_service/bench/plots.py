"""Pictures of a benchmark: latencies, their distribution, cost and errors, by the number of streams."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asr_service.bench.figures import Figures
from asr_service.bench.ramp import Objective
from asr_service.errors import ConfigError


def require_matplotlib() -> None:
    """Raises ConfigError where it is missing: told before minutes of load, not after."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("pictures need the package matplotlib: pip install matplotlib", field="png")


def write_png(path: Path, runs: Sequence[Figures], objective: Objective) -> None:
    """One page of four pictures; invalid loads are left out of the latencies. Raises ConfigError."""
    require_matplotlib()
    from matplotlib.figure import Figure

    every = sorted(runs, key=lambda run: run.streams)
    valid = [run for run in every if run.valid]
    page: Any = Figure(figsize=(11, 8), layout="constrained")
    (latencies, distribution), (cost, errors) = page.subplots(2, 2)
    _draw_latencies(latencies, valid, objective)
    _draw_distribution(distribution, valid)
    _draw_cost(cost, every)
    _draw_errors(errors, every)
    numbers = sorted({run.streams for run in every})
    for axes in (latencies, cost, errors):
        axes.set_xlabel("streams")
        axes.set_xscale("log", base=2)
        axes.set_xticks(numbers, [str(number) for number in numbers])
        axes.minorticks_off()
    try:
        page.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def _draw_latencies(axes: Any, runs: Sequence[Figures], objective: Objective) -> None:
    _lines(
        axes,
        runs,
        [
            ("word, p50", lambda run: run.word.p50 if run.word else None),
            ("word, p95", lambda run: run.word.p95 if run.word else None),
            ("word, p99", lambda run: run.word.p99 if run.word else None),
            ("partial after its first word, p95", lambda run: run.first_partial.p95 if run.first_partial else None),
        ],
    )
    axes.axhline(objective.word_p95_s, color="grey", linestyle=":", label="objective for p95")
    axes.legend()
    axes.set_ylabel("latency (s)")


def _draw_distribution(axes: Any, runs: Sequence[Figures]) -> None:
    """Of the words' latencies, a curve for each load."""
    for run in runs:
        axes.plot(run.word_quantiles, range(len(run.word_quantiles)), label=f"{run.streams} streams")
    axes.set_xlabel("latency of a word (s)")
    axes.set_ylabel("words shown by then (%)")
    if runs:
        axes.legend()


def _draw_cost(axes: Any, runs: Sequence[Figures]) -> None:
    """CPU by the left axis, memory by the right one."""
    _lines(axes, runs, [("CPU", lambda run: run.cost.cpu_per_audio_s if run.cost else None)])
    axes.set_ylabel("CPU seconds a second of audio of a stream")
    memory = axes.twinx()
    resident = ("memory", lambda run: run.cost.most_resident_mib if run.cost else None)
    _lines(memory, runs, [resident], color="tab:orange")
    memory.set_ylabel("resident memory (MiB), orange")


def _draw_errors(axes: Any, runs: Sequence[Figures]) -> None:
    """Word error rates under load with their intervals, and of the same calls alone."""
    for run in runs:
        quality = run.quality
        if quality is not None and quality.low is not None and quality.high is not None:
            axes.plot([run.streams] * 2, [100 * quality.low, 100 * quality.high], color="tab:blue")
    _lines(
        axes,
        runs,
        [
            ("under load, 95 % interval", lambda run: 100 * run.quality.wer if run.quality else None),
            (
                "the same calls alone",
                lambda run: 100 * run.quality.alone_wer if run.quality and run.quality.alone_wer is not None else None,
            ),
        ],
    )
    axes.legend()
    axes.set_ylabel("word error rate (%)")


def _lines(
    axes: Any,
    runs: Sequence[Figures],
    series: Sequence[tuple[str, Callable[[Figures], float | None]]],
    **style: str,
) -> None:
    for name, value in series:
        points = [(run.streams, found) for run in runs if (found := value(run)) is not None]
        axes.plot([streams for streams, _ in points], [found for _, found in points], "o-", label=name, **style)
