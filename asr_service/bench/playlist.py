"""What each stream plays: clips one after the other, with pauses between them, until the time is over.

A playlist depends on the clips, the stream's number and the time alone, not on how many streams there are. So stream 3
plays the same at any load, and its words can be compared with those it gets when it is alone.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asr_service.evaluation.forced_alignment import SpokenWord
from asr_service.evaluation.reference import Reference
from asr_service.types import SAMPLE_RATE_HZ

BYTES_PER_SAMPLE = 2
# A pause is faint noise, about -76 dB below full scale: a room is never wholly silent, and a muted microphone is rare.
PAUSE_AMPLITUDE = 5
# Neighbouring streams begin this share of the clips apart (the golden ratio spreads any number of them evenly).
STREAM_STRIDE = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording to play.

    Attributes:
        pcm: little-endian 16-bit samples, 16 kHz mono.
        words: of the reference, with their times in the clip by forced alignment.
    """

    reference: Reference
    pcm: bytes
    words: tuple[SpokenWord, ...]

    @property
    def duration_s(self) -> float:
        return len(self.pcm) / BYTES_PER_SAMPLE / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class Played:
    """A clip in a call; `start_s` is stream time of that call."""

    clip: Clip
    start_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + self.clip.duration_s

    @property
    def words(self) -> tuple[SpokenWord, ...]:
        """In stream time."""
        return tuple(
            SpokenWord(text, self.start_s + start_s, self.start_s + end_s) for text, start_s, end_s in self.clip.words
        )


@dataclass(frozen=True, slots=True)
class Call:
    """The clips that one call plays; a pause follows each but the last, which ends with the half-close."""

    clips: tuple[Played, ...]
    pause_s: float

    @property
    def duration_s(self) -> float:
        return self.clips[-1].end_s

    def messages(self, message_s: float) -> Iterator[bytes]:
        """The audio in messages of equal length; the last may be shorter."""
        size = round(message_s * SAMPLE_RATE_HZ) * BYTES_PER_SAMPLE
        pause = pause_pcm(self.pause_s)
        pending = b""
        for number, played in enumerate(self.clips):
            pending += played.clip.pcm + (pause if number < len(self.clips) - 1 else b"")
            whole = len(pending) // size * size
            for start in range(0, whole, size):
                yield pending[start : start + size]
            pending = pending[whole:]
        if pending:
            yield pending


def playlist(
    clips: Sequence[Clip], stream: int, *, seconds: float, pause_s: float, clips_per_call: int | None = None
) -> list[Call]:
    """Calls of one stream that last `seconds` or up to a clip longer; one call without `clips_per_call`.

    Raises ValueError without clips.
    """
    if not clips:
        raise ValueError("there is no clip to play")
    first = int(stream * STREAM_STRIDE % 1 * len(clips))
    calls: list[Call] = []
    total_s = 0.0
    row: list[Played] = []
    for clip in itertools.islice(itertools.cycle(clips), first, None):
        start_s = row[-1].end_s + pause_s if row else 0.0
        row.append(Played(clip, start_s))
        total_s += clip.duration_s + (pause_s if len(row) > 1 else 0.0)
        over = total_s >= seconds
        if over or len(row) == clips_per_call:
            calls.append(Call(tuple(row), pause_s))
            row = []
        if over:
            break
    return calls


@functools.cache
def pause_pcm(pause_s: float) -> bytes:
    """The same faint noise every time, 16-bit samples."""
    noise = np.random.default_rng(0).normal(0, PAUSE_AMPLITUDE, round(pause_s * SAMPLE_RATE_HZ))
    return np.round(noise).astype("<i2").tobytes()
