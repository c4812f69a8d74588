"""Ends a stream in which nobody speaks, at a place that depends on the audio alone."""

from __future__ import annotations

from collections.abc import Callable

from asr_service.engine.interface import SPEECH_BEGIN_PERIODS, FrameEvidence, UtterancePolicy
from asr_service.streaming.endpointer import TOLERANCE_S


class VoiceTimeoutPolicy:
    """An `UtterancePolicy` around another: ends the utterance where a voice activity timeout passes, and tells it.

    Deciding here, on stream time and on the engine's thread, makes the place independent of how the bytes arrive; a
    timer on the receiving side would fire later the more audio is queued. Speech is what begins voice activity, or a
    word: a click neither disarms the one timeout nor restarts the other.

    Attributes:
        start_timeout_s: no speech has begun this long after the start of the stream. None: no timeout.
        end_timeout_s: no speech for this long after speech ended. None: no timeout.
        on_timeout: called once, on the engine's thread, with the stream time.
    """

    def __init__(
        self,
        inner: UtterancePolicy,
        *,
        start_timeout_s: float | None,
        end_timeout_s: float | None,
        on_timeout: Callable[[float], None],
    ) -> None:
        self._inner = inner
        self._start_timeout_s = start_timeout_s
        self._end_timeout_s = end_timeout_s
        self._on_timeout = on_timeout
        self._speech_periods = 0  # in a row, up to now
        self._last_speech_s: float | None = None
        self._timed_out = False

    def observe(self, evidence: FrameEvidence) -> bool:
        self._speech_periods = self._speech_periods + 1 if evidence.is_speech else 0
        if self._speech_periods >= SPEECH_BEGIN_PERIODS or evidence.new_word:
            # Not backwards: where an utterance was cut for its length, what came after the cut is told a second time.
            self._last_speech_s = max(self._last_speech_s or 0.0, evidence.time_s)
        # Where speech may just be beginning, the next period tells.
        if not self._timed_out and not evidence.is_speech and self._is_over(evidence.time_s):
            self._timed_out = True
            self._on_timeout(evidence.time_s)
            return True
        return self._inner.observe(evidence)

    def _is_over(self, time_s: float) -> bool:
        since_s = self._last_speech_s
        timeout_s = self._start_timeout_s if since_s is None else self._end_timeout_s
        return timeout_s is not None and time_s - (since_s or 0.0) >= timeout_s - TOLERANCE_S
