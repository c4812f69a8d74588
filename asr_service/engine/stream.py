"""One stream inside the engine: which features wait, where its utterance began, what must be done next.

Everything here is a function of the audio alone: chunks and endpoints lie at fixed places of stream time, however the
bytes arrived and whatever else was in the batch. That is what makes streamed and whole transcripts equal.

Dimensions: T feature frames (10 ms), F mel bins.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_service.engine.frames import FRAME_S, TICK_FRAMES
from asr_service.engine.interface import (
    SPEECH_BEGIN_PERIODS,
    FrameEvidence,
    Sink,
    SpeechBegin,
    SpeechEnd,
    StreamHandle,
    StreamOptions,
    UtterancePolicy,
)
from asr_service.engine.voice_activity import BANDS, VoiceDetector
from asr_service.types import Mode

# The end of voice activity is announced after this much silence: shorter is a stop.
END_TICKS = 6
# Where an utterance ends though somebody has spoken in one of so many last ticks, it was cut for its length.
CUT_TICKS = 2
# It is then cut at the quietest place of the last four seconds, as far back as that can still be chosen.
CUT_CHOICE_TICKS = 50


@dataclass(frozen=True, slots=True)
class _Tick:
    """A stretch of `TICK_FRAMES` that was observed: its mean energy, and whether somebody spoke."""

    energy: float
    is_speech: bool


@dataclass(frozen=True, slots=True)
class Work:
    """The next thing to do for a stream.

    Attributes:
        frames: features to encode now; with `whole`, those of the utterance.
        lookahead: features after them to look at.
        whole: encode them as one utterance with full context, instead of as a chunk.
        ends_utterance: a final is due after them.
        ready_since: turn in which the work became ready.
    """

    frames: int
    lookahead: int
    whole: bool
    ends_utterance: bool
    ready_since: int


class Stream:
    """Features in, work out. `observed` runs ahead of `encoded`; both count feature frames since the stream began."""

    def __init__(
        self,
        handle: StreamHandle,
        options: StreamOptions,
        policy: UtterancePolicy,
        sink: Sink,
        *,
        n_mels: int,
        chunk_features: int,
        lookahead_features: int,
        voice: VoiceDetector,
    ) -> None:
        self.handle, self.options, self.sink = handle, options, sink
        self._policy = policy
        self._chunk, self._lookahead = chunk_features, lookahead_features
        self.carry = np.zeros(0, dtype=np.float32)
        self.unheard: list[NDArray[np.float32]] = []  # samples that have no features yet
        self._features = np.zeros((0, n_mels), dtype=np.float32)  # from frame `encoded` on
        self._levels = np.zeros((0, BANDS), dtype=np.float32)  # from frame `observed` on
        self.encoded = 0
        self.observed = 0
        self.utterance_start = 0
        self.utterance_index = 0
        self.finishing = False
        self.reported = 0  # what the last Progress told
        self._flushes: list[int] = []  # frames at which the client wants an endpoint, ascending
        self._work: Work | None = None
        self._turn = 0
        # Set by the engine from an endpoint to its final: what comes after waits, so that results come in order.
        self.final_since: int | None = None
        self.ended = False  # the last utterance has been taken: there is no more work
        # What the decoder has found, told by the engine after each chunk.
        self.has_words = False
        self.new_word = False
        self.last_word_end_s: float | None = None
        self.shows_words = False  # the last interim of the utterance did
        self._voice = voice
        self._speech_heard = False
        self._ticks: deque[_Tick] = deque(maxlen=CUT_CHOICE_TICKS)  # of the utterance, up to `observed`
        self._speaking = False
        self._run = 0

    @property
    def available(self) -> int:
        return self.encoded + len(self._features)

    def time_s(self, frame: int) -> float:
        """Stream time at the beginning of a feature frame."""
        return frame * FRAME_S

    def add(self, features: NDArray[np.float32], levels: NDArray[np.float32], turn: int) -> None:
        """Append (T, F) features and their (T, K) levels."""
        self._features = np.concatenate([self._features, features])
        self._levels = np.concatenate([self._levels, levels])
        self._turn = turn

    def flush(self) -> None:
        """An endpoint at the last whole tick that is here now."""
        place = self.observed + len(self._levels) // TICK_FRAMES * TICK_FRAMES
        if place not in self._flushes[-1:]:
            self._flushes.append(place)

    def work(self) -> Work | None:
        """The next work, found by observing ticks up to it; it stays the next until `take`."""
        if self._work is None and self.final_since is None and not self.ended:
            self._work = self._find_work()
        return self._work

    def take(self) -> NDArray[np.float32]:
        """Do the work that `work` told: returns its features (T, F) and those looked ahead at; the first leave."""
        assert self._work is not None
        frames = self._work.frames
        taken = self._features[: frames + self._work.lookahead]
        self._features = self._features[frames:]
        self.encoded += frames
        self.ended = self._work.ends_utterance and self.finishing and not len(self._features)
        self._work = None
        return taken

    def _find_work(self) -> Work | None:
        whole = self.options.mode is Mode.ACCURATE
        while True:
            waiting = self.observed - self.encoded
            if not whole and waiting == self._chunk + self._lookahead:
                return Work(self._chunk, self._lookahead, False, False, self._turn)
            if self._flushes and self.observed >= self._flushes[0]:
                del self._flushes[0]
                return Work(waiting, 0, whole, True, self._turn)
            if len(self._levels) < TICK_FRAMES:
                break
            if self._observe_tick():
                return Work(self._end() - self.encoded, 0, whole, True, self._turn)
        if self.finishing:
            self.observed += len(self._levels)
            self._levels = self._levels[:0]
            return Work(self.observed - self.encoded, 0, whole, True, self._turn)
        return None

    def _observe_tick(self) -> bool:
        is_speech = self._voice.observe(self._levels[:TICK_FRAMES])
        self._ticks.append(_Tick(float(self._levels[:TICK_FRAMES].mean()), is_speech))
        self._levels = self._levels[TICK_FRAMES:]
        self.observed += TICK_FRAMES
        self._announce(is_speech)
        return self._tell_policy(self.observed, is_speech)

    def _tell_policy(self, frame: int, is_speech: bool) -> bool:
        self._speech_heard |= is_speech
        accurate = self.options.mode is Mode.ACCURATE
        evidence = FrameEvidence(
            time_s=self.time_s(frame),
            is_speech=is_speech,
            has_words=self._speech_heard if accurate else self.has_words,
            new_word=self.new_word,
            utterance_start_s=self.time_s(self.utterance_start),
            last_word_end_s=self.last_word_end_s,
        )
        self.new_word = False
        return self._policy.observe(evidence)

    def _end(self) -> int:
        """Where the utterance that the policy ends now is over: here, unless that is in the middle of speech."""
        ticks = self._ticks_since(max(self.encoded, (self.utterance_start + self.observed) // 2))
        if not any(tick.is_speech for tick in ticks[-CUT_TICKS:]):
            return self.observed
        around = [before.energy + after.energy for before, after in itertools.pairwise(ticks)]
        around.append(2 * ticks[-1].energy)
        quietest = min(reversed(range(len(around))), key=around.__getitem__)
        # What comes after the cut has been observed already; `next_utterance` tells the policy again.
        return self.observed - (len(around) - 1 - quietest) * TICK_FRAMES

    def _ticks_since(self, frame: int) -> list[_Tick]:
        count = (self.observed - frame) // TICK_FRAMES
        return list(self._ticks)[-count:] if count else []

    def _announce(self, is_speech: bool) -> None:
        self._run = self._run + 1 if is_speech != self._speaking else 0
        if self._run == (END_TICKS if self._speaking else SPEECH_BEGIN_PERIODS):
            began_s = self.time_s(self.observed - self._run * TICK_FRAMES)
            self._speaking = not self._speaking
            self._run = 0
            self.sink(SpeechBegin(began_s) if self._speaking else SpeechEnd(began_s))

    @property
    def speech_heard(self) -> bool:
        """Whether anybody has spoken in the utterance so far."""
        return self._speech_heard

    def next_utterance(self) -> None:
        """The utterance is over; the next begins where it ended."""
        self.utterance_start = self.encoded
        self.has_words = self.new_word = self.shows_words = self._speech_heard = False
        self.last_word_end_s = None
        ticks = self._ticks_since(self.encoded)  # where the last one was cut for its length
        self._ticks.clear()
        self._ticks.extend(ticks)
        for place, tick in enumerate(ticks, 1):
            self._tell_policy(self.encoded + place * TICK_FRAMES, tick.is_speech)
