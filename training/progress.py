"""What a person sees of a run: a bar, a line every hundred updates, and the curve on disk."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType

import torch
from tqdm import tqdm

from training.distributed import Processes
from training.flops import peak_flops
from training.metrics import MetricsLog
from training.sampler import Position

LINE_EVERY = 100
NOT_SHOWN = {"audio_s", "wait_s", "time_s", "tflop", "lr"}


def _in_flops(rate: float, digits: int) -> str:
    """FLOP/s in the unit that shows them: a small model on a CPU does less than a hundredth of 10¹² of them."""
    scale, unit = (1e12, "TFLOP/s") if rate >= 1e12 else (1e9, "GFLOP/s")
    return f"{rate / scale:.{digits}f} {unit}"


class Progress:
    """Bar, lines and metrics.jsonl of the main process; nothing in the others."""

    def __init__(
        self,
        folder: Path,
        position: Position,
        steps: int,
        device: torch.device,
        compute_dtype: torch.dtype,
        processes: Processes,
    ) -> None:
        self._processes, self._device, self._compute_dtype = processes, device, compute_dtype
        self._running: dict[str, float] = {}
        self._audio_s = self._wait_s = self._time_s = self._tflop = 0.0
        self._log = MetricsLog(folder, position.step) if processes.main else None
        self._bar = tqdm(
            total=steps,
            initial=position.step,
            unit="step",
            mininterval=5,
            dynamic_ncols=True,
            disable=not processes.main,
        )

    def update(self, position: Position, values: dict[str, float]) -> None:
        """After an update; `values` are its losses, rate, norm, seconds of audio, of waiting and in all, and TFLOP.

        Seconds of audio are those heard of the corpus, views of an utterance counted once; what the chip makes of all
        views is in the TFLOP.
        """
        if self._log is None:
            return
        self._log.write("train", position.step, values)
        self._audio_s += values["audio_s"]
        self._wait_s += values["wait_s"]
        self._time_s += values["time_s"]
        self._tflop += values["tflop"]
        for name in values.keys() - NOT_SHOWN:
            if not math.isfinite(values[name]):
                continue  # an update that was skipped: it would stay in the mean for ever
            self._running[name] = 0.95 * self._running.get(name, values[name]) + 0.05 * values[name]
        shown = " ".join(f"{name}={self._running[name]:.2f}" for name in values if name in self._running)
        text = (
            f"epoch {position.epoch} heard {self._audio_s / self._time_s:.0f} s/s "
            f"wait {self._wait_s / self._time_s:.0%} lr {values['lr']:.2e} skipped {position.skipped} {shown}"
        )
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()
        if position.step % LINE_EVERY == 0:
            tqdm.write(f"step {position.step} {text}")

    def dev(self, step: int, losses: dict[str, float]) -> None:
        if self._log is not None:
            self._log.write("dev", step, losses)
            tqdm.write(f"step {step} dev: " + " ".join(f"{name}={value:.3f}" for name, value in losses.items()))

    def summary(self) -> str:
        """Speed of this segment, and its share of the chips' peak."""
        if not self._time_s:
            return "no update made"
        peak, source = peak_flops(self._device, self._compute_dtype)
        rate = self._tflop * 1e12 / self._time_s
        return (
            f"{self._audio_s / self._time_s:.0f} s of audio per second (views of an utterance counted once), "
            f"{self._wait_s / self._time_s:.1%} of the time waiting for data; {_in_flops(rate, 2)}, "
            f"{rate / (peak * self._processes.world):.1%} of the peak "
            f"({self._processes.world} × {_in_flops(peak, 1)}, {source})"
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._log is not None:
            self._log.__exit__(kind, error, trace)
            if error is None:
                print(self.summary())
