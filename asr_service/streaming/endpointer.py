"""Where an utterance ends: rules on silence and length, in stream time.

The rules are those of WeNet's `ctc_endpoint.h` and Kaldi's `online-endpoint.h`, with one more for long utterances:

    1  nothing heard:   `empty_silence_s` of silence, and neither a word nor speech in the utterance
    2  after speech:    `min_trailing_silence_s` of silence after the last word, or after speech without a word yet
    3  long utterance:  from `long_utterance_share` of `max_utterance_s` on, `long_utterance_silence_s` is enough,
                        so that rule 4 seldom has to cut a word
    4  too long:        `max_utterance_s`, whether or not somebody speaks
    5  wordless:        no new word for `wordless_s` after the last, though something sounds like speech: voices in the
                        background. Not before the first word, for the final pass may find one in what was said

Silence needs both: no frame of speech and no new word. A model's blanks alone are not silence (it is blank in the
middle of long vowels), and a voice activity detector alone misses quiet ends of words. A word is known later than it is
heard, so the silence after it counts from where it ended, not from when it was found. What a detector still hears
right behind the end of a word is the word's ringing, and what it hears for one tick in the middle of silence is a click
or a breath: neither begins the silence anew. The first tick of speech counts where nothing is decoded before the
endpoint, though it may be a click: nothing else tells of a short word, which would wait for rule 1, and its stretch of
audio is searched for words in any case, the shorter the sooner it ends.
"""

from __future__ import annotations

from asr_service.config import EndpointingSettings
from asr_service.engine.interface import EVIDENCE_PERIOD_S, FrameEvidence
from asr_service.types import EndpointingConfig

# Stream times are sums of frame lengths; comparing them exactly would let rounding move an endpoint by a frame.
TOLERANCE_S = 1e-6
# Speech that ends no later than this behind a word is of that word: rooms ring, and detectors let go slowly.
RINGING_S = 0.24
# But it may be a word that is not known yet: no more than this share of the silence that is asked for rests on it.
RINGING_SHARE = 0.3
# Speech of one tick counts with no more silence than this before it: quiet speech is heard in every other tick.
GAP_S = EVIDENCE_PERIOD_S


class Endpointer:
    """Decides for one stream; an `UtterancePolicy`. It sees stream time only, never a clock."""

    def __init__(self, config: EndpointingConfig, *, settings: EndpointingSettings | None = None) -> None:
        self._config = config
        self._settings = settings if settings is not None else EndpointingSettings()
        self._begin(0.0)

    def _begin(self, start_s: float) -> None:
        self._start_s = start_s
        self._spoken_s: float | None = None  # until when somebody spoke in this utterance
        self._was_speech = False

    def observe(self, evidence: FrameEvidence) -> bool:
        """Return True when the utterance ends at `evidence.time_s`."""
        # The utterance before may have ended at a client's flush, of which nothing else is told here.
        if evidence.utterance_start_s != self._start_s:
            self._begin(evidence.utterance_start_s)
        self._hear(evidence)
        length_s = evidence.time_s - evidence.utterance_start_s
        if length_s >= self._config.max_utterance_s - TOLERANCE_S:
            return True
        if evidence.has_words or self._spoken_s is not None:
            return self._is_silent(evidence, self._silence_after_speech_s(length_s)) or self._is_wordless(evidence)
        return self._is_silent(evidence, self._settings.empty_silence_s)

    def _hear(self, evidence: FrameEvidence) -> None:
        if evidence.is_speech:
            if self._spoken_s is None:
                goes_on = evidence.has_words
            else:
                goes_on = evidence.time_s - EVIDENCE_PERIOD_S - self._spoken_s <= GAP_S + TOLERANCE_S
            if goes_on or self._was_speech:
                self._spoken_s = evidence.time_s
        self._was_speech = evidence.is_speech

    def _is_silent(self, evidence: FrameEvidence, wanted_s: float) -> bool:
        """Whether there has been no speech and no word for so long, as far as is known by now."""
        spoken_s, word_s = self._spoken_s, evidence.last_word_end_s
        if spoken_s is not None and word_s is not None and spoken_s - word_s <= RINGING_S + TOLERANCE_S:
            spoken_s -= RINGING_SHARE * wanted_s
        known = (evidence.utterance_start_s, spoken_s, word_s)
        last_s = max(time_s for time_s in known if time_s is not None)
        # Where speech may just be beginning, the next tick tells.
        return not evidence.is_speech and evidence.time_s - last_s >= wanted_s - TOLERANCE_S

    def _is_wordless(self, evidence: FrameEvidence) -> bool:
        last_s = evidence.last_word_end_s
        wordless_s = max(self._settings.wordless_s, self._config.min_trailing_silence_s)
        return last_s is not None and evidence.time_s - last_s >= wordless_s - TOLERANCE_S

    def _silence_after_speech_s(self, length_s: float) -> float:
        wanted_s = self._config.min_trailing_silence_s
        if length_s >= self._settings.long_utterance_share * self._config.max_utterance_s - TOLERANCE_S:
            return min(wanted_s, self._settings.long_utterance_silence_s)
        return wanted_s
