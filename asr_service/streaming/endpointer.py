"""Where an utterance ends: rules on silence and length, in stream time.

The rules are those of WeNet's `ctc_endpoint.h` and Kaldi's `online-endpoint.h`, with one more for long utterances:

    1  nothing heard:   `empty_silence_s` of silence and no word in the utterance
    2  after words:     `min_trailing_silence_s` of silence after the last word
    3  long utterance:  from `long_utterance_share` of `max_utterance_s` on, `long_utterance_silence_s` is enough,
                        so that rule 4 seldom has to cut a word
    4  too long:        `max_utterance_s`, whether or not somebody speaks
    5  wordless:        no new word for `wordless_s`, though something sounds like speech: voices in the background

Silence needs both: no frame of speech and no new token. A model's blanks alone are not silence (it is blank in the
middle of long vowels), and a voice activity detector alone misses quiet ends of words. A word is known later than it is
heard, so the silence after it counts from where it ended, not from when it was found.
"""

from __future__ import annotations

from asr_service.config import EndpointingSettings
from asr_service.engine.interface import FrameEvidence
from asr_service.types import EndpointingConfig

# Stream times are sums of frame lengths; comparing them exactly would let rounding move an endpoint by a frame.
TOLERANCE_S = 1e-6


class Endpointer:
    """Decides for one stream; an `UtterancePolicy`. It sees stream time only, never a clock."""

    def __init__(self, config: EndpointingConfig, *, settings: EndpointingSettings | None = None) -> None:
        self._config = config
        self._settings = settings if settings is not None else EndpointingSettings()
        self._last_active_s: float | None = None  # None: nothing observed yet of this utterance

    def observe(self, evidence: FrameEvidence) -> bool:
        """Return True when the utterance ends at `evidence.time_s`."""
        if self._last_active_s is None:
            self._last_active_s = evidence.utterance_start_s
        self._last_active_s = max(self._last_active_s, self._active_s(evidence))
        silence_s = evidence.time_s - self._last_active_s
        length_s = evidence.time_s - evidence.utterance_start_s

        if length_s >= self._config.max_utterance_s - TOLERANCE_S:
            ends = True
        elif evidence.has_words:
            ends = silence_s >= self._silence_after_words_s(length_s) - TOLERANCE_S or self._is_wordless(evidence)
        else:
            ends = silence_s >= self._settings.empty_silence_s - TOLERANCE_S
        if ends:
            self._last_active_s = None
        return ends

    @staticmethod
    def _active_s(evidence: FrameEvidence) -> float:
        """Until when there was speech or a word, as far as this evidence tells."""
        if evidence.is_speech or (evidence.new_token and evidence.last_word_end_s is None):
            return evidence.time_s
        return evidence.utterance_start_s if evidence.last_word_end_s is None else evidence.last_word_end_s

    def _is_wordless(self, evidence: FrameEvidence) -> bool:
        last_s = evidence.last_word_end_s
        wordless_s = max(self._settings.wordless_s, self._config.min_trailing_silence_s)
        return last_s is not None and evidence.time_s - last_s >= wordless_s - TOLERANCE_S

    def _silence_after_words_s(self, length_s: float) -> float:
        wanted_s = self._config.min_trailing_silence_s
        if length_s >= self._settings.long_utterance_share * self._config.max_utterance_s - TOLERANCE_S:
            return min(wanted_s, self._settings.long_utterance_silence_s)
        return wanted_s
