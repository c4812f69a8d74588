"""What a client may do in wall-clock time: how long it may be silent, how much it may say without audio.

Clocks are monotonic and passed in, so a jump of the wall clock has no effect and tests need not wait.
"""

from __future__ import annotations

from asr_service.config import StreamSettings
from asr_service.errors import StreamIdle, TooManyMessages


class IdleTimer:
    """Fires when a stream gets neither enough audio nor a keep-alive. Counts audio time, not bytes or messages."""

    def __init__(self, settings: StreamSettings, now: float) -> None:
        self._settings = settings
        self._since = now
        self._audio_s = 0.0

    @property
    def deadline(self) -> float:
        return self._since + self._settings.idle_timeout_s

    def restart(self, now: float, audio_s: float) -> None:
        """A sign of life: a keep-alive, or the end of a time in which we did not read."""
        self._since, self._audio_s = now, audio_s

    def audio(self, now: float, audio_s: float) -> None:
        """`audio_s` seconds have now been received in all."""
        if audio_s - self._audio_s >= self._settings.idle_min_audio_s:
            self.restart(now, audio_s)

    def check(self, now: float) -> None:
        """Raises StreamIdle after the deadline."""
        if now >= self.deadline:
            timeout_s, least_s = self._settings.idle_timeout_s, self._settings.idle_min_audio_s
            raise StreamIdle(
                f"no audio for {timeout_s:g} s (less than {least_s:g} s of it); send silence or control.keep_alive"
            )


class EmptyMessageLimit:
    """A token bucket for messages without audio. Those with audio are bounded by the stream's length."""

    def __init__(self, settings: StreamSettings, now: float) -> None:
        self._settings = settings
        self._tokens = float(settings.empty_message_burst)
        self._now = now

    def count(self, now: float) -> None:
        """Raises TooManyMessages when the bucket is empty."""
        burst, rate = self._settings.empty_message_burst, self._settings.empty_messages_per_s
        self._tokens = min(burst, self._tokens + (now - self._now) * rate)
        self._now = now
        if self._tokens < 1.0:
            raise TooManyMessages(f"messages without audio: more than {burst} at once or {rate:g} a second")
        self._tokens -= 1.0
