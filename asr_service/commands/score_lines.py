"""An evaluation as lines of text: every one with a rate says what normalised the texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from asr_service.evaluation.bootstrap import wer_interval
from asr_service.evaluation.latency_summary import Percentiles, latency_summary
from asr_service.evaluation.normalizer import Normalizer
from asr_service.evaluation.result import NO_INTERVAL, Evaluation, Interval, UtteranceScore
from asr_service.evaluation.wer import WordErrors

# How many of the characters that a normaliser drops are named.
_NAMED = 5


def score_lines(evaluation: Evaluation) -> Iterator[str]:
    """A line for each corpus that has a name and, but of one alone, one for all; then other rates, speed, latency."""
    groups: dict[str, list[UtteranceScore]] = {}
    for row in evaluation.utterances:
        groups.setdefault(row.reference.corpus, []).append(row)
    for name, rows in sorted(groups.items()):
        if name:
            yield _wer_line(name, rows, _interval(rows), evaluation.normalizer)
    if len(groups) != 1 or "" in groups:
        yield _wer_line("all", evaluation.utterances, evaluation.wer_interval, evaluation.normalizer)
    yield (
        f"{'':32s} CER {100 * evaluation.cer:6.2f} %, sentences with an error {100 * evaluation.ser:.2f} %; "
        f"{evaluation.normalizer}, costs {evaluation.costs}"
    )
    yield from _speed_lines(evaluation)


def dropped_lines(evaluation: Evaluation, rule: Normalizer) -> Iterator[str]:
    """What was said but is not scored, for `rule` drops its characters: a line for references, one for outputs."""
    for kind, texts in (
        ("reference", [row.reference.text for row in evaluation.utterances]),
        ("output", [row.output.text for row in evaluation.utterances]),
    ):
        dropped = list(filter(None, map(rule.dropped, texts)))
        if dropped:
            counts = Counter("".join(dropped)).most_common()
            named = ", ".join(f"{char!r} {count}x" for char, count in counts[:_NAMED])
            more = f" and {len(counts) - _NAMED} more" if len(counts) > _NAMED else ""
            have = f"{kind}s have" if len(dropped) > 1 else f"{kind} has"
            yield (
                f"{len(dropped)} {have} characters that {rule.label} drops ({named}{more}): "
                "these characters are left out, the rest is scored"
            )


def _wer_line(name: str, rows: Sequence[UtteranceScore], interval: Interval, normalizer: str) -> str:
    total = sum((row.words for row in rows), WordErrors())
    between, drawn = "", NO_INTERVAL
    if interval.exists:
        between = f" [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"
        drawn = f"{100 * interval.level:g} % bootstrap over {interval.over}"
    return (
        f"{name:32s} WER {100 * total.rate:6.2f} %{between}  "
        f"S {total.substitutions} D {total.deletions} I {total.insertions} of {total.reference_words} words, "
        f"{len(rows)} utterance{'s' * (len(rows) > 1)}; {normalizer}, {drawn}"
    )


def _interval(rows: Sequence[UtteranceScore]) -> Interval:
    return wer_interval(
        [row.words.errors for row in rows],
        [row.words.reference_words for row in rows],
        [row.reference.speaker for row in rows],
    )


def _speed_lines(evaluation: Evaluation) -> Iterator[str]:
    speed = latency_summary(evaluation.utterances)
    if speed is None:
        return
    if speed.rtfx:  # 0 where no recording has any audio
        yield (
            f"RTFx {speed.rtfx:.2f}: real-time factor {1 / speed.rtfx:.3f} "
            f"({_seconds(speed.audio_s)} of audio in {_seconds(speed.processing_s)} of computation)"
        )
    for name, aware, unaware in (
        ("first partial after its first word began", speed.first_partial, speed.unaware_first_partial),
        ("words after they ended", speed.word, speed.unaware_word),
        ("last final after the audio ended", speed.final, speed.unaware_final),
    ):
        if aware is not None:
            waited = f"; without computation {_percentiles(unaware)}" if unaware is not None else ""
            yield f"{name}: {_percentiles(aware)}{waited}"
    if speed.revoked_share is not None:
        yield f"revoked {speed.revoked_words} of {speed.emitted_words} words shown"
    if speed.gap_share is not None:
        yield (
            f"speech without words over 2 s: {speed.gaps} stretches, {speed.gap_s:.1f} s, "
            f"{100 * speed.gap_share:.2f} % of the audio"
        )


def _seconds(seconds: float) -> str:
    return f"{seconds:.{1 if seconds < 100 else 0}f} s"


def _percentiles(values: Percentiles) -> str:
    return f"p50 {values.p50:.2f} s, p95 {values.p95:.2f} s"
