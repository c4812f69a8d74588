"""What the engine takes and what it gives: the seam between recognition streams and the one thread with the model.

Every call but `open` is a message in one inbox, so the order of a stream's calls is the order of their effect. Outputs
of a stream reach its sink in order, on the engine's thread: a sink must not block and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr_service.engine.frames import FRAME_S, TICK_FRAMES
from asr_service.errors import AsrError
from asr_service.types import Hypothesis, Mode, PhraseHint

EVIDENCE_PERIOD_S = TICK_FRAMES * FRAME_S
# Speech begins with so many periods of it in a row: shorter is a click.
SPEECH_BEGIN_PERIODS = 2


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What the engine must know of a stream before its first sample."""

    mode: Mode
    max_alternatives: int = 1
    interim_results: bool = False
    phrase_hints: tuple[PhraseHint, ...] = ()


@dataclass(frozen=True, slots=True)
class FrameEvidence:
    """What the engine knows at `time_s` about whether somebody speaks; one every `EVIDENCE_PERIOD_S` of audio.

    Attributes:
        time_s: stream time at the end of this stretch of audio.
        is_speech: frame-level voice activity decision for the stretch.
        has_words: the current utterance's best hypothesis holds at least one word (streaming mode; in accurate mode
            nothing is decoded before the endpoint, and this equals "speech has been heard").
        new_word: the chunk that was decoded last brought a word to the best hypothesis that ends within
            `search.NEW_WORD_S` of the chunk's end; told once, with the first stretch that is observed after it.
        utterance_start_s: where the current utterance began.
        last_word_end_s: where the best hypothesis' last word ends, in stream time; decoding is behind `time_s`, so it
            may be known late. None where there is no word, or nothing is decoded before the endpoint.
    """

    time_s: float
    is_speech: bool
    has_words: bool
    new_word: bool
    utterance_start_s: float
    last_word_end_s: float | None = None


class UtterancePolicy(Protocol):
    """Decides where utterances end. Pure logic on stream time, so the same audio always gives the same endpoints,
    however its bytes were split. Called on the engine's thread, once per `FrameEvidence`.
    """

    def observe(self, evidence: FrameEvidence) -> bool:
        """Return True when the utterance ends here. The policy then starts afresh for the next one."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """All audio up to `processed_s` has left the engine's queue (releases back-pressure)."""

    processed_s: float


@dataclass(frozen=True, slots=True)
class SpeechBegin:
    time_s: float


@dataclass(frozen=True, slots=True)
class SpeechEnd:
    time_s: float


@dataclass(frozen=True, slots=True)
class Partial:
    """The current utterance so far: the first `stable_words` words never change again, and start the final.

    The utterance ends at `end_s` or later. Words that were found in the look-ahead may lie beyond.
    """

    hypothesis: Hypothesis
    stable_words: int
    utterance_index: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Final:
    """An utterance with at least one word, done. Utterances without words give no output and take no index."""

    alternatives: tuple[Hypothesis, ...]
    utterance_index: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Finished:
    """Terminal: everything that was pushed before `finish` has been answered; the slot is free."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Terminal: the stream ends with this error; the slot is free."""

    error: AsrError


StreamOutput = Progress | SpeechBegin | SpeechEnd | Partial | Final | Finished | Failed
Sink = Callable[[StreamOutput], None]


@dataclass(frozen=True, slots=True)
class StreamHandle:
    """A slot and its generation: a message for an older generation of a slot is dropped."""

    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a server tells about its model.

    Attributes:
        chunk_s: audio that a step of streaming mode decodes.
        model_hash: of the files it was loaded from (`model.digest.model_hash`), "" where it is from none.
    """

    model: str
    languages: tuple[str, ...]
    modes: tuple[Mode, ...]
    features: tuple[str, ...]
    max_streams: int
    chunk_s: float
    model_hash: str = ""


class Engine(Protocol):
    """One model on one thread, serving up to `info.max_streams` streams in batches."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def active_streams(self) -> int: ...

    @property
    def healthy(self) -> bool:
        """False where the thread is gone, is stuck in one turn, or every turn fails: only a new engine can help."""
        ...

    def start(self) -> None:
        """Start the engine's thread."""
        ...

    def prepare(self, mode: Mode, phrase_hints: tuple[PhraseHint, ...]) -> object:
        """Make ready what streams with these hints need, so that `open` need not. Thread-safe, and as slow as there are
        many phrases: not for an event loop. What it made stays while the result is held; after that it may be dropped
        when many others were prepared since.
        """
        ...

    def ready(self, mode: Mode, phrase_hints: tuple[PhraseHint, ...]) -> object | None:
        """As `prepare` where all is there, in no time; None where something must be made first."""
        ...

    def open(self, options: StreamOptions, policy: UtterancePolicy, sink: Sink) -> StreamHandle:
        """Take a slot; slow with hints that were not prepared. Raises NoCapacity when no slot is free, ShuttingDown
        after `stop`. Thread-safe.
        """
        ...

    def audio(self, handle: StreamHandle, pcm: NDArray[np.float32]) -> None:
        """Queue 16 kHz mono samples in [-1, 1], shape (n,). The caller bounds what it queues by `Progress`."""
        ...

    def flush(self, handle: StreamHandle) -> None:
        """End the current utterance here, as an endpoint would; the stream goes on."""
        ...

    def finish(self, handle: StreamHandle) -> None:
        """No more audio: answer all of it, then `Finished`."""
        ...

    def cancel(self, handle: StreamHandle) -> None:
        """Drop the stream and free its slot; no output follows. Idempotent, also after a terminal output."""
        ...

    def stop(self) -> None:
        """Stop the thread; streams still open get `Failed(ShuttingDown)`. Waits for the thread, not for a stuck one."""
        ...
