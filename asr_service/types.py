"""The vocabulary of the service: what a request asks for and what a recogniser answers.

Plain data, importable everywhere: no torch, no numpy, no grpc. Times are seconds from the first sample of the
stream; confidences and stabilities lie in [0, 1].
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

SAMPLE_RATE_HZ = 16_000
"""Every decoder ends in mono float32 at this rate, and the models take it."""


class Mode(enum.Enum):
    """How a stream is decoded (see docs/architecture.md).

    ACCURATE encodes each utterance whole, searches it through the lexicon and ranks the hypotheses once more with the
    decoder, the CTC heads and the language models. Without a lexicon a beam goes by decoder and CTC together.
    STREAMING encodes chunk by chunk and shows partial words while somebody speaks.
    """

    ACCURATE = "accurate"
    STREAMING = "streaming"


class AudioEncoding(enum.Enum):
    """Encodings of the bytes a client sends. UNSPECIFIED means: read it from the container's header."""

    UNSPECIFIED = "unspecified"
    LINEAR16 = "linear16"
    FLOAT32 = "float32"
    MULAW = "mulaw"
    ALAW = "alaw"
    WAV = "wav"
    FLAC = "flac"
    OGG_OPUS = "ogg_opus"
    MP3 = "mp3"


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """What the client says of its bytes. Zero means unset: taken from the container, where there is one."""

    encoding: AudioEncoding = AudioEncoding.UNSPECIFIED
    sample_rate_hz: int = 0
    channels: int = 0


@dataclass(frozen=True, slots=True)
class EndpointingConfig:
    """When an utterance ends.

    Attributes:
        min_trailing_silence_s: silence after the last word that ends an utterance.
        max_utterance_s: an utterance is ended here even if somebody still speaks.
    """

    min_trailing_silence_s: float = 0.72
    max_utterance_s: float = 30.0


@dataclass(frozen=True, slots=True)
class PhraseHint:
    """A phrase that is likely to be spoken: normalised words, and by how much, as a natural logarithm of odds."""

    phrase: str
    boost: float


@dataclass(frozen=True, slots=True)
class RecognitionConfig:
    """What one stream or one unary call asks for, after validation."""

    audio: AudioFormat = field(default_factory=AudioFormat)
    channel: int | None = None  # counted from 0; None mixes all of them
    mode: Mode = Mode.ACCURATE
    model: str = ""
    max_alternatives: int = 1
    word_time_offsets: bool = False
    word_confidence: bool = False
    interim_results: bool = False
    single_utterance: bool = False
    voice_activity_events: bool = False
    speech_start_timeout_s: float | None = None
    speech_end_timeout_s: float | None = None
    endpointing: EndpointingConfig | None = None  # None: the server's for the mode
    phrase_hints: tuple[PhraseHint, ...] = ()


@dataclass(frozen=True, slots=True)
class Word:
    """A recognised word with its place in the stream (seconds).

    Attributes:
        confidence: the chance that it is right; 0.0 in partial hypotheses, for which nothing is estimated.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One alternative for an utterance.

    Attributes:
        score: the search's log score, comparable within the utterance.
        confidence: the mean of its words', so 0.0 in partial hypotheses.
    """

    words: tuple[Word, ...]
    score: float = 0.0
    confidence: float = 0.0

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True, slots=True)
class RecognitionResult:
    """An interim or a final for one utterance.

    Attributes:
        alternatives: best first; interims carry one.
        is_final: a final is never retracted; an interim replaces the earlier interims of its utterance.
        stability: (0, 1] on interims, 0 on finals. Text shown with 0.9 or more never changes.
        start_s, end_s: in stream time, never backwards.
        utterance_index: counts from 0; finals are consecutive.
    """

    alternatives: tuple[Hypothesis, ...]
    is_final: bool
    stability: float
    start_s: float
    end_s: float
    utterance_index: int


class SpeechEventKind(enum.Enum):
    END_OF_SINGLE_UTTERANCE = "end_of_single_utterance"
    SPEECH_ACTIVITY_BEGIN = "speech_activity_begin"
    SPEECH_ACTIVITY_END = "speech_activity_end"
    SPEECH_ACTIVITY_TIMEOUT = "speech_activity_timeout"


@dataclass(frozen=True, slots=True)
class SpeechEvent:
    """Something heard that is not a word."""

    kind: SpeechEventKind
    time_s: float
