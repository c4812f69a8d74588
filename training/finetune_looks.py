"""Looks at two dev sets during fine-tuning, and which of them is the best that has not forgotten."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

import asr_service
from asr_service.evaluation.bootstrap import wer_interval
from asr_service.evaluation.result import Interval
from asr_service.evaluation.wer import WordErrors, word_errors
from asr_service.model.bundle import Bundle
from asr_service.types import Mode
from training.atomic import atomic_text
from training.data import Utterance, recording
from training.measure import recognise

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a bundle made of some utterances, through the search that serves."""

    references: tuple[str, ...]
    hypotheses: tuple[str, ...]

    @property
    def counts(self) -> list[WordErrors]:
        return [word_errors(*pair) for pair in zip(self.references, self.hypotheses, strict=True)]

    @property
    def wer(self) -> float:
        return sum(self.counts, WordErrors()).rate

    def interval(self) -> Interval:
        """Of the word error rate, over utterances, whoever speaks them."""
        counts = self.counts
        words = [count.reference_words for count in counts]
        return wer_interval([count.errors for count in counts], words, [""] * len(counts))

    def shown(self) -> str:
        interval = self.interval()
        return f"{100 * self.wer:6.2f} % [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"

    def summary(self) -> dict[str, object]:
        """Counts, word error rate and its 95 % interval, for a report."""
        interval = self.interval()
        total = sum(self.counts, WordErrors())
        return {
            "wer": round(total.rate, 5),
            "interval": [round(interval.low, 5), round(interval.high, 5)],
            "errors": total.errors,
            "words": total.reference_words,
            "utterances": len(self.counts),
        }

    def every(self, indices: Sequence[int]) -> Recognised:
        """Some of the utterances."""
        return Recognised(tuple(self.references[i] for i in indices), tuple(self.hypotheses[i] for i in indices))


def evaluated(bundle: Bundle, utterances: Sequence[Utterance], cache: Path | None = None) -> Recognised:
    """Recognise utterances in `accurate` mode.

    With a `cache` folder, what an earlier call found for the same files of the bundle, the same utterances and the same
    recogniser's source is read again: a run that is resumed, or two from one base, need its word error rate once.
    """
    path = None
    if cache is not None:
        digest = hashlib.sha256()
        source = Path(asr_service.__file__).parent.rglob("*.py")
        for file in sorted([*filter(Path.is_file, bundle.directory.iterdir()), *source]):
            digest.update(file.name.encode() + file.read_bytes())
        digest.update("\n".join(f"{recording(utterance)} {utterance.text}" for utterance in utterances).encode())
        path = cache / f"{digest.hexdigest()[:24]}.json"
        if path.exists():
            return Recognised(**{name: tuple(texts) for name, texts in json.loads(path.read_text()).items()})
    threads = torch.get_num_threads()
    begun = time.monotonic()
    found = Recognised(
        tuple(utterance.text for utterance in utterances), tuple(recognise(bundle, utterances, Mode.ACCURATE))
    )
    torch.set_num_threads(threads)  # the engine sets its own
    seconds = sum(utterance.duration_s for utterance in utterances)
    print(f"{len(utterances)} utterances recognised, real-time factor {(time.monotonic() - begun) / seconds:.3f}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_text(path) as output:
            json.dump(dataclasses.asdict(found), output, indent=1)
    return found


def evenly(items: Sequence[T], wanted: int) -> list[T]:
    """`wanted` of the items, spread over them, or all (0: all)."""
    if not wanted or wanted >= len(items):
        return list(items)
    return [items[number * len(items) // wanted] for number in range(wanted)]


@dataclass(frozen=True, slots=True)
class Look:
    """Word error rates after `step` updates; step 0 is the base."""

    step: int
    target: float
    old: float


class Looks:
    """The looks of a run, kept in a file so that a resumed run knows them."""

    def __init__(self, path: Path, *, limit: float) -> None:
        self._path, self._limit = path, limit
        self.looks = [Look(**look) for look in json.loads(path.read_text())] if path.exists() else []

    def at(self, step: int) -> Look | None:
        return next((look for look in self.looks if look.step == step), None)

    def add(self, look: Look) -> None:
        self.looks = sorted([*(known for known in self.looks if known.step != look.step), look], key=lambda x: x.step)

    def save(self) -> None:
        """Note them: a resumed run makes none of these again."""
        with atomic_text(self._path) as file:
            json.dump([dataclasses.asdict(known) for known in self.looks], file, indent=1)

    def told(self) -> str:
        """The base and the look that is best at the target, be it forgetful."""
        base, *others = self.looks
        if not others:
            return "there was none"
        best = min(others, key=lambda look: look.target)
        return (
            f"the best, after {best.step} updates, had {best.target:.2%} against the base's {base.target:.2%}, "
            f"and {best.old:.2%} against {base.old:.2%} on old dev"
        )

    def has_forgotten(self, look: Look) -> bool:
        """Whether the error rate on old dev has risen by more than the limit since step 0."""
        return look.old - self.looks[0].old > self._limit + 1e-9  # a rise of just the limit is none above it

    @property
    def best(self) -> Look:
        """The lowest error rate on target dev of those that have not forgotten; of equals the first, maybe step 0."""
        return min((look for look in self.looks if not self.has_forgotten(look)), key=lambda look: look.target)
