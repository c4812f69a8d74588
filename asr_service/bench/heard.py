"""What became of each clip that was played: its words, and when a reader saw them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from asr_service.bench.generator import CallRecord
from asr_service.bench.playlist import Played
from asr_service.evaluation.alignment import align
from asr_service.evaluation.forced_alignment import SpokenWord
from asr_service.evaluation.normalizer import normalize_transcript


@dataclass(frozen=True, slots=True)
class WordLatency:
    """A word that was recognised as it was said.

    Attributes:
        spoken_s: run time at which it ended in the audio.
        latency_s: from then until it was first shown and stayed.
    """

    spoken_s: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Heard:
    """A clip of a call.

    Attributes:
        text: the words of the finals that lie in the clip, by the middle of each word.
        words: of those that are right, the latencies.
        first_partial_s: from the end of the clip's first word until a first word, right or wrong, was shown; None where
            nothing was recognised.
        final_s: from the end of the clip's last word, and after the call's last clip from its half-close, until the
            final with its last words came; the endpoint's silence is in it where `closed` is False.
        splits_s: for each place where an utterance ended before the clip did, the pause of the speaker there.
        utterances: finals that begin in this clip.
        closed: whether the call was half-closed behind this clip.
        first_spoken_s, last_spoken_s: when the clip's first and last word ended, in run time.
    """

    played: Played
    stream: int
    text: str
    words: tuple[WordLatency, ...]
    first_partial_s: float | None
    final_s: float | None
    splits_s: tuple[float, ...]
    utterances: int
    closed: bool
    first_spoken_s: float
    last_spoken_s: float


@dataclass(frozen=True, slots=True)
class _FinalWord:
    text: str
    middle_s: float
    shown_s: float
    final_s: float
    utterance: int


# (index in what was said, recognised word, whether it is right)
_Pair = tuple[int, _FinalWord, bool]


def heard(record: CallRecord) -> list[Heard]:
    """One for each clip of a call."""
    words = list(_final_words(record))
    clips = record.call.clips
    found: list[Heard] = []
    earlier: set[int] = set()  # utterances that began in a clip before
    for number, played in enumerate(clips):
        last = number + 1 == len(clips)
        until_s = float("inf") if last else clips[number + 1].start_s - record.call.pause_s / 2
        here = [word for word in words if word.middle_s < until_s]
        words = words[len(here) :]
        begun = {word.utterance for word in here} - earlier
        earlier |= begun
        shown_s = [record.first_shown_s[utterance] for utterance in begun] + [word.shown_s for word in here]
        found.append(_heard(record, played, here, shown_s, utterances=len(begun), closed=last))
    return found


def _final_words(record: CallRecord) -> Iterator[_FinalWord]:
    timing = record.display.timing(processing_s=None, audio_s=record.call.duration_s, uncovered_s=())
    latencies = iter(timing.word_latencies_s)  # from the recogniser's own word ends: added again, when it was shown
    reached_s = 0.0
    for final in record.finals:
        for word in final.words:
            reached_s = max(reached_s, (word.start_s + word.end_s) / 2)
            yield _FinalWord(word.text, reached_s, word.end_s + next(latencies), final.shown_s, final.utterance)


def _heard(
    record: CallRecord, played: Played, here: list[_FinalWord], shown_s: list[float], *, utterances: int, closed: bool
) -> Heard:
    said = played.words
    pairs = list(_aligned(said, here))
    first_s = final_s = None
    if here and said:
        # What was shown before the first word began was not that word.
        after = [time_s for time_s in shown_s if time_s >= said[0].start_s]
        first_s = min(after) - said[0].end_s if after else None
        final_s = here[-1].final_s - (record.call.duration_s if closed else said[-1].end_s)
    return Heard(
        played,
        record.stream,
        " ".join(word.text for word in here),
        tuple(
            WordLatency(record.begun_s + said[place].end_s, word.shown_s - said[place].end_s)
            for place, word, right in pairs
            if right
        ),
        first_s,
        final_s,
        tuple(_splits(said, pairs)),
        utterances,
        closed,
        record.begun_s + (said[0].end_s if said else played.start_s),
        record.begun_s + (said[-1].end_s if said else played.end_s),
    )


def _aligned(said: Sequence[SpokenWord], here: Sequence[_FinalWord]) -> Iterator[_Pair]:
    """Each word that was recognised, with the index of what was said there, and whether it is right."""
    (operations,) = align([([word.text for word in said], [_as_scored(word.text) for word in here])])
    place, shown = -1, iter(here)
    for operation in operations:
        place += operation != "I"
        word = None if operation == "D" else next(shown)
        if operation in "CS" and word is not None:
            yield place, word, operation == "C"


def _splits(said: Sequence[SpokenWord], pairs: Sequence[_Pair]) -> Iterator[float]:
    for (before, earlier, _), (after, later, _) in itertools.pairwise(pairs):
        if earlier.utterance != later.utterance:
            # Where words between them are missing, the longest pause is where the end was seen.
            yield max(said[place + 1].start_s - said[place].end_s for place in range(before, after))


def _as_scored(word: str) -> str:
    """One word, never empty: alignment counts words."""
    return normalize_transcript(word).replace(" ", "'") or word
