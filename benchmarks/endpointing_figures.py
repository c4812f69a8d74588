"""What endpoints are worth, by where words and pauses lie."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr_service.bench.figures import SILENCE_S
from asr_service.config import EndpointingSettings
from asr_service.engine.interface import EVIDENCE_PERIOD_S, SpeechBegin, SpeechEnd
from asr_service.evaluation.forced_alignment import SpokenWord

# Of silence before an endpoint by default.
WANTED_S = EndpointingSettings().min_trailing_silence_s
# An endpoint is late from this long after SILENCE_S.
LATE_S = 0.3
# The tail of a word that may still sound behind its end by forced alignment.
RINGING_S = 0.24


class Figures:
    """Of one detector in one condition."""

    def __init__(self) -> None:
        self.clips = self.utterances = self.words = self.heard = self.ticks = self.quiet = 0
        self.splits = [0, 0, 0]  # at pauses under 0.4 s, under 0.8 s, longer
        self.delays: list[float] = []
        self.begins: list[float] = []
        self.ends: list[float] = []
        self.cpu_s = self.audio_s = 0.0

    def add(self, words: Sequence[SpokenWord], ends_s: Sequence[float], ticks: NDArray[np.bool_] | None) -> None:
        last_s = words[-1].end_s
        pauses = [(one.end_s, other.start_s) for one, other in itertools.pairwise(words)]
        behind = [end_s for end_s in ends_s if end_s > last_s]
        for end_s in ends_s[: len(ends_s) - len(behind)]:
            longest_s = max((b - a for a, b in pauses if b > end_s - WANTED_S and a < end_s), default=0.0)
            self.splits[(longest_s >= 0.4) + (longest_s >= 0.8)] += 1
        self.clips, self.utterances = self.clips + 1, self.utterances + len(ends_s) + (not behind)
        self.delays += [behind[0] - last_s] if behind else []
        if ticks is not None:
            spans = [ticks[int(w.start_s / EVIDENCE_PERIOD_S) : int(w.end_s / EVIDENCE_PERIOD_S) + 1] for w in words]
            self.words, self.heard = self.words + len(words), self.heard + sum(bool(span.any()) for span in spans)
            tail = ticks[int((last_s + RINGING_S) / EVIDENCE_PERIOD_S) :]
            self.ticks, self.quiet = self.ticks + len(tail), self.quiet + int((~tail).sum())

    def line(self, name: str) -> str:
        shares = [f"{100 * count / self.utterances:4.1f}" for count in self.splits]
        delays = np.quantile(self.delays, [0.05, 0.5, 0.95]) if self.delays else [np.nan] * 3
        late = sum(delay > SILENCE_S + LATE_S for delay in self.delays)
        alone = f"  heard {100 * self.heard / self.words:5.1f}%  quiet {100 * self.quiet / self.ticks:5.1f}%" * bool(
            self.words
        )
        events = "".join(
            f"  {kind} {np.median(errors):+.2f} s, {np.quantile(np.abs(errors), 0.95):.2f} in 95%"
            for kind, errors in (("begin", self.begins), ("end", self.ends))
            if errors
        )
        return (
            f"{name:18} {self.clips:3} clips  split at <0.4 s {shares[0]}%  <0.8 s {shares[1]}%  longer {shares[2]}%  "
            f"none {self.clips - len(self.delays):3}  late {late:3}  delay {delays[0]:.2f} {delays[1]:.2f} "
            f"{delays[2]:.2f} s{alone}{events}  CPU {1000 * self.cpu_s / self.audio_s:.2f} ms/s"
        )

    def add_events(self, words: Sequence[SpokenWord], events: Sequence[SpeechBegin | SpeechEnd]) -> None:
        """The first begin against the first word, the last end against the last one."""
        begins = [event.time_s for event in events if isinstance(event, SpeechBegin)]
        ends = [event.time_s for event in events if isinstance(event, SpeechEnd)]
        self.begins += [begins[0] - words[0].start_s] if begins else []
        self.ends += [ends[-1] - words[-1].end_s] if ends else []
