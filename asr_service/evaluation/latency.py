"""When words were shown, against when they were spoken: latency, revoked words, speech without words.

Two clocks, as SimulEval names them (Ma et al. 2020, "SimulEval: An Evaluation Toolkit for Simultaneous Translation";
`delays` and `elapsed` in its simuleval/evaluator/instance.py):

- unaware (of computation): a word is shown when the message that brought it out has arrived, for a machine that
  computes in no time. This is what the policy waits for: chunk, look-ahead, endpoint, and the messages' own length.
- aware: computation is added. SimulEval adds all of it since the first message to what was read, which counts twice
  the time in which speech goes on while the machine computes. Here the machine is a queue with one server, as in real
  life: the work on a message begins when the message is there and the work before it is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from asr_service.evaluation.output import Output, Timing
from asr_service.types import SpeechEvent, SpeechEventKind, Word

# What a live client sends at once; its length is part of every latency.
MESSAGE_S = 0.1
# A stretch of speech without words is worth a number from here on: a hesitation is shorter.
UNCOVERED_S = 2.0


class VirtualClock:
    """Time as a live stream would have it, without waiting: now = max(now, arrival) + computation."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.computed_s = 0.0

    def work(self, arrived_s: float, computation_s: float) -> float:
        """What arrived at `arrived_s` took `computation_s` of work; returns when that was done."""
        self.now_s = max(self.now_s, arrived_s) + computation_s
        self.computed_s += computation_s
        return self.now_s


@dataclass(frozen=True, slots=True)
class _Shown:
    """A word on the display since `aware_s` and, for a machine that computes in no time, `unaware_s`."""

    text: str
    aware_s: float
    unaware_s: float | None


class DisplayLog:
    """What a reader of one stream saw.

    Interims of an utterance replace each other. A word that is in both texts, by their longest matching blocks
    (difflib), has stayed, also where a word before it has changed; the others of the old text are revoked, those of
    the new text are emitted. So emitted less revoked words are the words of the finals. Revoked over final words is
    the unstable partial word ratio of Shangguan et al. 2020, "Analyzing the quality and stability of a streaming
    end-to-end on-device speech recognizer".

    Times are stream time: zero is when the first sample was spoken.
    """

    def __init__(self) -> None:
        self._open: dict[int, list[_Shown]] = {}  # by utterance: those that have no final yet, one in general
        self._first: _Shown | None = None
        self._finals: list[tuple[Word, _Shown]] = []
        self._last_final: tuple[float, float | None] | None = None
        self._emitted = 0
        self._revoked = 0

    @property
    def words(self) -> tuple[Word, ...]:
        """Of the finals so far."""
        return tuple(word for word, _ in self._finals)

    def interim(self, utterance_index: int, text: str, aware_s: float, unaware_s: float | None) -> None:
        """All of an utterance's interim text at one moment."""
        self._open[utterance_index] = self._replaced(utterance_index, text.split(), aware_s, unaware_s)

    def final(self, utterance_index: int, words: Sequence[Word], aware_s: float, unaware_s: float | None) -> None:
        shown = self._replaced(utterance_index, [word.text for word in words], aware_s, unaware_s)
        self._open.pop(utterance_index, None)
        self._finals += zip(words, shown, strict=True)
        self._last_final = (aware_s, unaware_s)

    def _replaced(
        self, utterance_index: int, words: Sequence[str], aware_s: float, unaware_s: float | None
    ) -> list[_Shown]:
        before = self._open.get(utterance_index, [])
        after = [_Shown(word, aware_s, unaware_s) for word in words]
        kept = 0
        matcher = SequenceMatcher(None, [word.text for word in before], list(words), autojunk=False)
        for block in matcher.get_matching_blocks():
            after[block.b : block.b + block.size] = before[block.a : block.a + block.size]
            kept += block.size
        self._emitted += len(words) - kept
        self._revoked += len(before) - kept
        if self._first is None and after:
            self._first = after[0]
        return after

    def timing(self, *, processing_s: float | None, audio_s: float, uncovered_s: tuple[float, ...]) -> Timing:
        """Of a stream that has ended. Interims that never became final count as revoked."""
        last_final = self._last_final or (None, None)
        first, began_s = self._first, self._finals[0][0].start_s if self._finals else 0.0
        return Timing(
            processing_s=processing_s,
            audio_s=audio_s,
            first_partial_s=_since(began_s, first.aware_s if first else None),
            final_s=_since(audio_s, last_final[0]),
            unaware_first_partial_s=_since(began_s, first.unaware_s if first else None),
            unaware_final_s=_since(audio_s, last_final[1]),
            word_latencies_s=tuple(shown.aware_s - word.end_s for word, shown in self._finals),
            unaware_word_latencies_s=tuple(
                shown.unaware_s - word.end_s for word, shown in self._finals if shown.unaware_s is not None
            ),
            emitted_words=self._emitted,
            revoked_words=self._revoked + sum(map(len, self._open.values())),
            uncovered_s=uncovered_s,
        )


def _since(start_s: float, then_s: float | None) -> float | None:
    return None if then_s is None else then_s - start_s


class StreamLog:
    """All that one stream answered, with the stretches of speech by the recogniser's own voice activity decision."""

    def __init__(self) -> None:
        self.display = DisplayLog()
        self._speech: list[tuple[float, float]] = []
        self._speaking_since: float | None = None

    def event(self, event: SpeechEvent) -> None:
        if event.kind is SpeechEventKind.SPEECH_ACTIVITY_BEGIN:
            self._speaking_since = event.time_s
        elif event.kind is SpeechEventKind.SPEECH_ACTIVITY_END and self._speaking_since is not None:
            self._speech.append((self._speaking_since, event.time_s))
            self._speaking_since = None

    def output(self, utterance_id: str, *, processing_s: float | None, audio_s: float, timed: bool) -> Output:
        """Of a stream that has ended; without `timed` it has no latencies."""
        speech = list(self._speech)
        if self._speaking_since is not None:  # up to the end
            speech.append((self._speaking_since, audio_s))
        words = self.display.words
        gaps = uncovered(speech, words)
        timing = (
            self.display.timing(processing_s=processing_s, audio_s=audio_s, uncovered_s=gaps)
            if timed
            else Timing(processing_s, audio_s, uncovered_s=gaps)
        )
        return Output(utterance_id, " ".join(word.text for word in words), words, timing)


def uncovered(speech: Iterable[tuple[float, float]], words: Iterable[Word]) -> tuple[float, ...]:
    """Lengths of the parts of `speech` over `UNCOVERED_S` in which no word lies, in order; seconds."""
    spans = sorted((word.start_s, word.end_s) for word in words)
    gaps: list[float] = []
    first = 0  # words before it ended before any speech that is still to come
    for start_s, end_s in sorted(speech):
        while first < len(spans) and spans[first][1] <= start_s:
            first += 1
        reached_s = start_s
        place = first
        while place < len(spans) and spans[place][0] < end_s:
            gaps.append(spans[place][0] - reached_s)
            reached_s = max(reached_s, spans[place][1])
            place += 1
        gaps.append(end_s - reached_s)
    return tuple(gap for gap in gaps if gap > UNCOVERED_S)
