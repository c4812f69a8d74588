"""The figures of one load: what held, how late words came, how good they were, what it cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asr_service.bench.generator import REFUSED, CallRecord, Load, LoadRecord
from asr_service.bench.heard import Heard, heard
from asr_service.evaluation.bootstrap import wer_interval
from asr_service.evaluation.output import Output
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.result import Interval
from asr_service.evaluation.scoring import score
from asr_service.evaluation.wer import WordErrors

# A generator whose 99th percentile of lateness is above this has measured itself.
MAX_LATE_S = 0.05
# An utterance that ends at a pause shorter than this was cut: nobody has finished a sentence there.
SHORT_PAUSE_S = 0.4
# The silence that a speaker hears before a final may be expected. Servers decide on what they hear of it, so theirs
# (`endpointing.min_trailing_silence_s`) may be another.
SILENCE_S = 0.8
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of `count` measurements, in seconds; linear between the nearest two."""

    p50: float
    p95: float
    p99: float
    count: int


@dataclass(frozen=True, slots=True)
class Quality:
    """Word errors of the clips that streams which held have played to their end.

    Attributes:
        wer, low, high: rate and its bootstrap interval, as shares; None and None where it has none.
        over: what was drawn with replacement for the interval, as in evaluation's `Interval`. An utterance is drawn
            with all its repetitions: what several streams play shares what makes it hard.
        alone_wer: of the same clips, each call alone; None where that was not asked for.
        changed: clips whose words were others than alone.
        clips, different: clips played, and how many different ones those are.
    """

    wer: float
    low: float | None
    high: float | None
    over: str
    normalizer: str
    errors: int
    reference_words: int
    clips: int
    different: int
    alone_wer: float | None = None
    changed: int | None = None

    @property
    def worse_by(self) -> float | None:
        """In points: per cent of the reference words."""
        return None if self.alone_wer is None else 100 * (self.wer - self.alone_wer)


@dataclass(frozen=True, slots=True)
class Cost:
    """What the server used from before the first stream to after the last, when all of the audio has been worked on.

    Attributes:
        cpu_per_audio_s: seconds of processor time for a second of audio of one stream, held or not.
        resident_mib: when the load began, and the most.
    """

    cpu_per_audio_s: float
    resident_mib: float
    most_resident_mib: float


@dataclass(frozen=True, slots=True)
class Slope:
    """How much later words come, in seconds per second of the run, with its standard error (least squares)."""

    per_s: float
    error: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one load. Latencies are of what was said while all streams ran; what has no measurement is None.

    Attributes:
        channels: connections that were opened.
        held, refused, failed: streams that ended well, that had no place, and the others by status.
        first_partial: from the end of a clip's first word until any words are shown; evaluation counts from its start.
        word: from the end of a word, by forced alignment of the reference, until it was shown and stayed.
        final: from the end of a clip's last word to its final, the endpoint's silence with it.
        final_after_silence: from SILENCE_S after the end of a clip's last word to its final.
        final_after_endpoint: from when the message had been sent in which an utterance ended to its final: what the
            final pass, the queue and the way take. Calls' last finals are not among these.
        final_after_close: from the half-close to the call's last final.
        utterances, short_splits: finals, and those of them that ended inside of a clip at a pause under SHORT_PAUSE_S.
        generator_late: of the generator itself; `server_held`: of messages that the call took late.
        quality: None where no stream that held has played a word.
        generator_cpu_per_audio_s: the generator's own processor time for a second of audio of one stream, held or not.
        word_quantiles: 0 to 100 per cent of the word latencies.
    """

    streams: int
    seconds: float
    message_s: float
    channels: int
    held: int
    refused: int
    failed: dict[str, int]
    first_partial: Percentiles | None
    word: Percentiles | None
    final: Percentiles | None
    final_after_silence: Percentiles | None
    final_after_endpoint: Percentiles | None
    final_after_close: Percentiles | None
    emitted_words: int
    revoked_words: int
    utterances: int
    short_splits: int
    quality: Quality | None
    cost: Cost | None
    slope: Slope | None
    generator_late: Percentiles | None
    server_held: Percentiles | None
    messages: int
    generator_cpu_per_audio_s: float | None = None
    word_quantiles: tuple[float, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the latencies are the server's."""
        return self.generator_late is not None and self.generator_late.p99 <= MAX_LATE_S

    @property
    def revoked_share(self) -> float | None:
        return self.revoked_words / self.emitted_words if self.emitted_words else None


def figures(record: LoadRecord, *, alone: Iterable[CallRecord] = (), normalizer: str = "basic") -> Figures:
    """`alone` are the same calls, each by itself, where there are any."""
    load = record.load
    bad = {call.stream: call for call in record.calls if call.status != "OK"}
    calls = [call for call in record.calls if call.stream not in bad]
    clips = [clip for call in calls for clip in heard(call)]

    def under_load(spoken_s: float) -> bool:
        return load.stagger_s <= spoken_s <= load.seconds

    words = [word for clip in clips for word in clip.words if under_load(word.spoken_s)]
    latencies = [word.latency_s for word in words]
    finals = [clip.final_s for clip in clips if not clip.closed and under_load(clip.last_spoken_s)]
    sent_s = sum(call.sent_s for call in record.calls)
    timings = [call.display.timing(processing_s=None, audio_s=0.0, uncovered_s=()) for call in calls]
    return Figures(
        streams=load.streams,
        seconds=load.seconds,
        message_s=load.message_s,
        channels=load.connections,
        held=load.streams - len(bad),
        refused=sum(call.reason == REFUSED for call in bad.values()),
        failed=dict(Counter(call.status for call in bad.values() if call.reason != REFUSED)),
        first_partial=percentiles(clip.first_partial_s for clip in clips if under_load(clip.first_spoken_s)),
        word=percentiles(latencies),
        final=percentiles(finals),
        final_after_silence=percentiles(final_s - SILENCE_S for final_s in finals if final_s is not None),
        final_after_endpoint=percentiles(
            after_s for call in calls for ended_s, after_s in _after_endpoints(call, load) if under_load(ended_s)
        ),
        final_after_close=percentiles(clip.final_s for clip in clips if clip.closed),
        emitted_words=sum(timing.emitted_words for timing in timings),
        revoked_words=sum(timing.revoked_words for timing in timings),
        utterances=sum(clip.utterances for clip in clips),
        short_splits=sum(pause_s < SHORT_PAUSE_S for clip in clips for pause_s in clip.splits_s),
        quality=_quality(clips, [clip for call in alone for clip in heard(call)], normalizer),
        cost=_cost(record, sent_s),
        slope=slope([(word.spoken_s, word.latency_s) for word in words]),
        generator_late=percentiles(record.pace.late_s),
        server_held=percentiles(record.pace.held_s),
        messages=record.pace.messages,
        generator_cpu_per_audio_s=record.generator_cpu_s / sent_s if sent_s else None,
        word_quantiles=tuple(np.percentile(latencies, range(101)).tolist()) if latencies else (),
    )


def _after_endpoints(call: CallRecord, load: Load) -> Iterator[tuple[float, float]]:
    """(run time, latency) of each final but those that the half-close asked for."""
    for final in call.finals:
        # The small number keeps rounding from moving an endpoint at a message's very end into the next one.
        sent_s = math.ceil(final.end_s / load.message_s - 1e-6) * load.message_s
        if sent_s < call.call.duration_s:
            yield call.begun_s + sent_s, final.shown_s - sent_s


def percentiles(values: Iterable[float | None]) -> Percentiles | None:
    """None without any; those that are None do not count."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    p50, p95, p99 = np.percentile(known, [50, 95, 99])
    return Percentiles(float(p50), float(p95), float(p99), len(known))


def slope(points: Sequence[tuple[float, float]]) -> Slope | None:
    """The least-squares line through (time, latency); None where it is not determined."""
    if len(points) < 3:
        return None
    times, values = np.array(points).T
    centred = times - times.mean()
    spread = float(centred @ centred)
    if spread == 0:
        return None
    per_s = float(centred @ values) / spread
    rest = values - values.mean() - per_s * centred
    return Slope(per_s, float(np.sqrt(rest @ rest / (len(points) - 2) / spread)))


def _quality(clips: Sequence[Heard], alone: Sequence[Heard], normalizer: str) -> Quality | None:
    if not clips:
        return None
    references = [_reference(clip, number) for number, clip in enumerate(clips)]
    outputs = [Output(reference.utterance_id, clip.text) for reference, clip in zip(references, clips, strict=True)]
    scored = score(references, outputs, normalizer=normalizer)
    if not scored.words.reference_words:
        return None
    alone_wer = changed = None
    texts = {_place(clip): clip.text for clip in alone}
    if texts:
        pairs = [(row, texts[_place(clip)]) for row, clip in zip(references, clips, strict=True)]
        alone_outputs = [Output(row.utterance_id, text) for row, text in pairs]
        alone_wer = score(references, alone_outputs, normalizer=normalizer).wer
        changed = sum(output.text != text for output, (_, text) in zip(outputs, pairs, strict=True))
    spoken = [clip.played.clip.reference for clip in clips]
    interval = _interval(spoken, [utterance.words for utterance in scored.utterances])
    return Quality(
        wer=scored.wer,
        low=interval.low if interval.exists else None,
        high=interval.high if interval.exists else None,
        over=interval.over,
        normalizer=scored.normalizer,
        errors=scored.words.errors,
        reference_words=scored.words.reference_words,
        clips=len(clips),
        different=len({reference.utterance_id for reference in spoken}),
        alone_wer=alone_wer,
        changed=changed,
    )


def _interval(spoken: Sequence[Reference], counts: Sequence[WordErrors]) -> Interval:
    """Of the rate; `spoken` is what was said in each clip that was played."""
    together: dict[str, WordErrors] = {}
    for reference, counted in zip(spoken, counts, strict=True):
        together[reference.utterance_id] = together.get(reference.utterance_id, WordErrors()) + counted
    speakers = {reference.utterance_id: reference.speaker for reference in spoken}
    return wer_interval(
        [counted.errors for counted in together.values()],
        [counted.reference_words for counted in together.values()],
        [speakers[utterance_id] for utterance_id in together],
    )


def _place(clip: Heard) -> tuple[int, str, float]:
    """What is the same for a clip under load and alone."""
    return clip.stream, clip.played.clip.reference.utterance_id, clip.played.start_s


def _reference(clip: Heard, number: int) -> Reference:
    spoken = clip.played.clip.reference
    return Reference(f"{number}:{spoken.utterance_id}", spoken.text, speaker=spoken.speaker, corpus=spoken.corpus)


def _cost(record: LoadRecord, audio_s: float) -> Cost | None:
    if len(record.usage) < 2 or not audio_s:
        return None
    (_, first), (_, last) = record.usage[0], record.usage[-1]
    return Cost(
        cpu_per_audio_s=(last.cpu_s - first.cpu_s) / audio_s,
        resident_mib=first.resident_bytes / MIB,
        most_resident_mib=max(used.resident_bytes for _, used in record.usage) / MIB,
    )
