"""What a recogniser answered for one utterance, and when."""

from __future__ import annotations

from dataclasses import dataclass

from asr_service.types import Word


@dataclass(frozen=True, slots=True)
class Timing:
    """How long an utterance took; seconds. What a mode or a system does not have is None or empty.

    Attributes:
        processing_s: computation of this utterance alone, from its first sample to its last word.
        audio_s: length of the audio that was recognised.
        first_partial_s: from the start of the first word, or of the audio where word times are unknown, until a first
            word was shown.
        final_s: from the end of the audio until the last final; below zero where it came before that.
        unaware_first_partial_s, unaware_final_s: the same for a machine that computes in no time.
        word_latencies_s: for each final word, from its end in the audio until it was first shown and stayed.
        unaware_word_latencies_s: the same for a machine that computes in no time: what the policy waits for.
        emitted_words, revoked_words: words that interims and finals brought, and those of them that did not stay.
        uncovered_s: length of each stretch of speech over two seconds without a word.
    """

    processing_s: float | None
    audio_s: float | None = None
    first_partial_s: float | None = None
    final_s: float | None = None
    unaware_first_partial_s: float | None = None
    unaware_final_s: float | None = None
    word_latencies_s: tuple[float, ...] = ()
    unaware_word_latencies_s: tuple[float, ...] = ()
    emitted_words: int = 0
    revoked_words: int = 0
    uncovered_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """The words of one utterance, as the recogniser spelled them.

    Attributes:
        words: with times and confidences, where the system gives them; otherwise empty, and only `text` counts.
    """

    utterance_id: str
    text: str
    words: tuple[Word, ...] = ()
    timing: Timing | None = None
