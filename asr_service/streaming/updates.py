"""What the client is told: the engine's outputs with stability, in stream time that never goes backwards."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from asr_service.engine.interface import Final, Partial, SpeechBegin, SpeechEnd
from asr_service.types import (
    Hypothesis,
    RecognitionConfig,
    RecognitionResult,
    SpeechEvent,
    SpeechEventKind,
    Word,
)

# Text with 0.9 or more is a promise. Not 0.9 itself: in protobuf's float that is 0.89999998, which is not >= 0.9.
STABLE = 0.95
UNSTABLE = 0.1


@dataclass(frozen=True, slots=True)
class StreamUpdate:
    """One message to the client: a final; or the interims of an utterance, stable part first; or an event.

    Attributes:
        results: one final, or one or two interims; empty with an event.
        event: set where there are no results.
        audio_received_s: audio that had been received by then.
    """

    results: tuple[RecognitionResult, ...] = ()
    event: SpeechEvent | None = None
    audio_received_s: float = 0.0

    @property
    def interim_of(self) -> int | None:
        """The utterance of which this is an interim, else None."""
        if self.results and not self.results[0].is_final:
            return self.results[0].utterance_index
        return None


class UpdateBuilder:
    """Turns the engine's outputs for one stream into updates, in order."""

    def __init__(self, config: RecognitionConfig) -> None:
        self._config = config
        self._final_end_s = 0.0
        self._result_end_s = 0.0
        self._event_s = 0.0

    def interim(self, partial: Partial, audio_received_s: float) -> StreamUpdate:
        """One result for the stable words, one for the tail; either is left out when it is empty.

        Without any words there is a tail without text: what was shown before has turned out to be none.
        """
        start_s, end_s = self._span(partial.start_s, partial.end_s, audio_received_s)
        self._result_end_s = end_s
        words = _forward(partial.hypothesis.words, start_s, end_s)
        stable, tail = words[: partial.stable_words], words[partial.stable_words :]
        middle_s = end_s if not tail else stable[-1].end_s if stable else start_s
        parts = ((stable, STABLE, start_s, middle_s), (tail, UNSTABLE, middle_s, end_s))
        results = tuple(
            RecognitionResult(
                alternatives=(Hypothesis(part),),
                is_final=False,
                stability=stability,
                start_s=part_start_s,
                end_s=part_end_s,
                utterance_index=partial.utterance_index,
            )
            for part, stability, part_start_s, part_end_s in parts
            if part or (stability == UNSTABLE and not words)
        )
        return StreamUpdate(results=results, audio_received_s=audio_received_s)

    def final(self, final: Final, audio_received_s: float) -> StreamUpdate:
        start_s, end_s = self._span(final.start_s, final.end_s, audio_received_s)
        alternatives = tuple(
            dataclasses.replace(hypothesis, words=_forward(hypothesis.words, start_s, end_s))
            for hypothesis in final.alternatives[: max(1, self._config.max_alternatives)]
        )
        self._result_end_s = self._final_end_s = end_s
        result = RecognitionResult(alternatives, True, 0.0, start_s, end_s, final.utterance_index)
        return StreamUpdate(results=(result,), audio_received_s=audio_received_s)

    def event(self, kind: SpeechEventKind, time_s: float, audio_received_s: float) -> StreamUpdate:
        self._event_s = max(self._event_s, min(time_s, audio_received_s))
        return StreamUpdate(event=SpeechEvent(kind, self._event_s), audio_received_s=audio_received_s)

    def voice_activity(self, output: SpeechBegin | SpeechEnd, audio_received_s: float) -> StreamUpdate:
        begins = isinstance(output, SpeechBegin)
        kind = SpeechEventKind.SPEECH_ACTIVITY_BEGIN if begins else SpeechEventKind.SPEECH_ACTIVITY_END
        return self.event(kind, output.time_s, audio_received_s)

    def _span(self, start_s: float, end_s: float, received_s: float) -> tuple[float, float]:
        """A result never starts before the last final's end, nor ends before an earlier result's end.

        Nor does it end after the audio that was received: the last chunk of a stream may have been padded.
        """
        start_s = max(min(start_s, received_s), self._final_end_s)
        return start_s, max(min(end_s, received_s), start_s, self._result_end_s)


def _forward(words: tuple[Word, ...], from_s: float, to_s: float) -> tuple[Word, ...]:
    """Words whose times lie within the result and never go backwards: alignments of neighbours may overlap a frame."""
    kept: list[Word] = []
    for word in words:
        start_s = min(max(word.start_s, from_s), to_s)
        end_s = min(max(word.end_s, start_s), to_s)
        moved = (start_s, end_s) != (word.start_s, word.end_s)
        kept.append(dataclasses.replace(word, start_s=start_s, end_s=end_s) if moved else word)
        from_s = end_s
    return tuple(kept)
