"""How live streams are encoded and decoded: one interface for all policies, and the policy *chunked*.

A policy encodes the next step of many streams in one batch; the `LiveDecoder` that it gives each stream makes partials
and finals of what was encoded. Steps lie at fixed places of stream time, so words are a function of the audio alone.

Dimensions: T feature frames (10 ms), F mel bins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr_service.engine.interface import StreamOptions
from asr_service.engine.runner import Encoded, ModelRunner
from asr_service.engine.search import UtteranceSearch
from asr_service.engine.search_space import SearchSpace
from asr_service.parts import Parts
from asr_service.types import Hypothesis, Mode


class LiveDecoder(Protocol):
    """One live stream, utterance by utterance: `take`, `step` in turn, `partial` in between, `final_parts`, `reset`."""

    @property
    def has_words(self) -> bool:
        """Whether the best hypothesis of the utterance has a word."""
        ...

    def take(self, features: NDArray[np.float32], *, ends_utterance: bool, waiting: int) -> NDArray[np.float32] | None:
        """The next step's features (T, F) → what to encode for it, (T', F); None where there is nothing to encode.

        `waiting`: feature frames that have come after this step already.
        """
        ...

    def step(self, encoded: Encoded) -> bool:
        """What was encoded; True when the best hypothesis grew near its end."""
        ...

    def partial(self, *, offset_s: float) -> tuple[Hypothesis, int]:
        """The utterance so far, in stream time, and how many of its first words never change again."""
        ...

    def last_word_end_s(self, *, offset_s: float) -> float | None:
        """Where the best hypothesis' last word ends, in stream time, whether or not it is shown yet."""
        ...

    def final_parts(self, *, offset_s: float) -> Parts[tuple[Hypothesis, ...]]:
        """Ranked alternatives, best first, each starting with the words that never change; none without words."""
        ...

    def reset(self) -> None:
        """Begin the next utterance."""
        ...


class LivePolicy(Protocol):
    """Encodes steps of live streams.

    Attributes:
        step_features: feature frames of a step.
        lookahead_features: frames after them that a step sees, and that come again with the next.
        search_modes: of the searches that a stream has.
    """

    step_features: int
    lookahead_features: int
    search_modes: tuple[Mode, ...]

    def decoders(self, options: StreamOptions) -> Callable[[int], LiveDecoder]:
        """What begins a stream in a slot, on the engine's thread and at no great cost; this call may be slow, and may
        come from any thread.
        """
        ...

    def encode(self, slots: Sequence[int], inputs: Sequence[NDArray[np.float32]], kept: Sequence[int]) -> list[Encoded]:
        """What these streams' decoders took; `kept` feature frames of each step are for good. Changes nothing when it
        raises.
        """
        ...


class ChunkedDecoder:
    """Each chunk goes on with the search of those before it."""

    def __init__(self, search: UtteranceSearch) -> None:
        self._search = search

    @property
    def has_words(self) -> bool:
        return self._search.has_words

    def take(
        self,
        features: NDArray[np.float32],
        *,
        ends_utterance: bool,  # noqa: ARG002
        waiting: int,  # noqa: ARG002
    ) -> NDArray[np.float32] | None:
        return features if len(features) else None

    def step(self, encoded: Encoded) -> bool:
        return self._search.step(encoded)

    def partial(self, *, offset_s: float) -> tuple[Hypothesis, int]:
        return self._search.partial(offset_s=offset_s)

    def last_word_end_s(self, *, offset_s: float) -> float | None:
        words = self._search.best(offset_s=offset_s).words
        return words[-1].end_s if words else None

    def final_parts(self, *, offset_s: float) -> Parts[tuple[Hypothesis, ...]]:
        return self._search.final_parts(offset_s=offset_s)

    def reset(self) -> None:
        self._search.reset()


class ChunkedPolicy:
    """Each frame is encoded once, with the cache of what came before: for encoders that were trained on chunks."""

    search_modes: tuple[Mode, ...] = (Mode.STREAMING,)

    def __init__(self, runner: ModelRunner, space: SearchSpace) -> None:
        self._runner, self._space = runner, space
        self.step_features = runner.chunk_features
        self.lookahead_features = runner.lookahead_features

    def decoders(self, options: StreamOptions) -> Callable[[int], LiveDecoder]:
        search = self._space.searches(options)

        def begin(slot: int) -> LiveDecoder:
            self._runner.reset(slot)
            return ChunkedDecoder(search())

        return begin

    def encode(self, slots: Sequence[int], inputs: Sequence[NDArray[np.float32]], kept: Sequence[int]) -> list[Encoded]:
        return self._runner.encode_chunks(slots, inputs, kept)
