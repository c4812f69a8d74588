"""What phrase hints do for rare words of dev: their recall, and the errors of all other words, by boost.

    python -m training.hints_report --bundle asr_service/models/en-s --every 3

The words are drawn (fixed seed) from those that occur once or twice in the texts, have four letters or more, are in the
lexicon and are rare to the n-gram (log10 p at most `RARE`). Odd utterances choose the boost, even ones are reported,
each with words of their own: without hints, with the words, and with distractors beside them: other words of the
lexicon, as rare and as long. Then the words of all utterances that the lexicon lacks, which it has to pronounce by
their letters. Posteriors are those of `training.posteriors`, so that only the search runs; live streams are searched
chunk by chunk, as the engine does it. Changes come with 95 % intervals: pairs of utterances drawn again and again
(bootstrap).
"""

# Dimensions: N utterances.

from __future__ import annotations

import argparse
import dataclasses
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_service.commands.option_types import positive
from asr_service.config import PhraseHintSettings
from asr_service.decoding.language_model import WordLanguageModel
from asr_service.engine.frames import PHONE_FRAME_S
from asr_service.engine.interface import StreamOptions
from asr_service.engine.search_space import SearchSpace
from asr_service.evaluation.alignment import align, aligned_words
from asr_service.lexicon import Lexicon
from asr_service.model.bundle import Bundle, load_bundle
from asr_service.types import Mode, PhraseHint
from training.calibrate import stretches
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.dev_set import add_dev_options, dev_set
from training.posteriors import DevUtterance, posteriors

MIN_LETTERS = 4
MOST_OCCURRENCES = 2
RARE = -5.0
_DRAWS = 2000
_WIDTH = 26
# What a phrase is given.
Boost = Callable[[str], float]


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """Of one run over utterances, each (N,): expected words that were said and of them found, the other words and the
    errors in them, and expected words that were heard where they were not said.

    Attributes:
        cost: CPU seconds of the search per second of audio.
    """

    said: NDArray[np.int64]
    found: NDArray[np.int64]
    others: NDArray[np.int64]
    other_errors: NDArray[np.int64]
    false_alarms: NDArray[np.int64]
    cost: float

    @property
    def recall(self) -> float:
        return _rate(self.found, self.said)

    @property
    def rest(self) -> float:
        """Errors a word of all others."""
        return _rate(self.other_errors, self.others)

    @property
    def wer(self) -> float:
        return _rate(self.other_errors + self.said - self.found, self.others + self.said)


def _rate(part: NDArray[np.int64], whole: NDArray[np.int64]) -> float:
    return float(part.sum() / max(1, whole.sum()))


def interval(
    before: tuple[NDArray[np.int64], NDArray[np.int64]], after: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[float, float]:
    """95 % of what the change of a rate, (part, whole) each (N,), is when the utterances are drawn with replacement."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(before[0]), (_DRAWS, len(before[0])))
    rates = [part[drawn].sum(axis=1) / np.maximum(1, whole[drawn].sum(axis=1)) for part, whole in (before, after)]
    low, high = np.quantile(rates[1] - rates[0], (0.025, 0.975))
    return float(low), float(high)


def rare_words(dev: Sequence[DevUtterance], lexicon: Lexicon, model: WordLanguageModel) -> list[str]:
    """The words of `dev` that may be drawn, sorted."""
    counts = Counter(word for utterance in dev for word in utterance.text.split())
    return sorted(word for word, count in counts.items() if count <= MOST_OCCURRENCES and is_rare(word, lexicon, model))


def is_rare(word: str, lexicon: Lexicon, model: WordLanguageModel) -> bool:
    index = model.index(word)
    return index is not None and len(word) >= MIN_LETTERS and word in lexicon and model.unigram(index) <= RARE


def distractors(
    dev: Sequence[DevUtterance], lexicon: Lexicon, model: WordLanguageModel, count: int, seed: int
) -> list[str]:
    """Rare words of the lexicon that no text of `dev` has."""
    said = {word for utterance in dev for word in utterance.text.split()}
    candidates = [word for word in lexicon if word not in said and is_rare(word, lexicon, model)]
    return random.Random(seed).sample(candidates, min(count, len(candidates)))


def recognise(
    space: SearchSpace, dev: Sequence[DevUtterance], mode: Mode, hints: Sequence[PhraseHint], chunk_frames: int
) -> tuple[list[str], float]:
    """The texts of `dev`, and the CPU seconds of the search per second of audio."""
    search = space.new_search(StreamOptions(mode, phrase_hints=tuple(hints)))
    texts, frames, started = [], 0, time.process_time()
    for utterance in dev:
        search.reset()
        for stretch in stretches(utterance.encoded, mode, chunk_frames):
            search.step(stretch)
        found = search.final(offset_s=0.0)
        texts.append(found[0].text if found else "")
        frames += len(utterance.encoded.phones)
    return texts, (time.process_time() - started) / (frames * PHONE_FRAME_S)


def figures(
    references: Sequence[str], texts: Sequence[str], words: set[str], hinted: set[str], cost: float = 0.0
) -> Figures:
    """Recall of `words`, errors in all but those where one of them was said; false alarms are of `hinted` too."""
    pairs = [(reference.split(), text.split()) for reference, text in zip(references, texts, strict=True)]
    counts = np.zeros((5, len(pairs)), dtype=np.int64)
    for row, ((reference, heard), operations) in enumerate(zip(pairs, align(pairs), strict=True)):
        for word in aligned_words(reference, heard, operations):
            is_right = word.operation == "C"
            expected = word.reference in words
            counts[:, row] += (
                expected,
                expected and is_right,
                word.reference is not None and not expected,
                not expected and not is_right,
                not is_right and word.hypothesis in hinted,
            )
    said, recalled, others, errors, alarms = counts
    return Figures(said, recalled, others, errors, alarms, cost)


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """Some utterances, searched in one mode, without hints and with many."""

    space: SearchSpace
    dev: Sequence[DevUtterance]
    mode: Mode
    chunk_frames: int

    def figures(self, words: Sequence[str], more: Sequence[str], boost: Boost | None) -> Figures:
        """With `words` and `more` as hints; without any where there is no `boost`. Recall is that of `words`."""
        hints = [PhraseHint(word, boost(word)) for word in (*words, *more)] if boost else []
        texts, cost = recognise(self.space, self.dev, self.mode, hints, self.chunk_frames)
        return figures([utterance.text for utterance in self.dev], texts, set(words), {*words, *more}, cost)


def row(name: str, found: Figures, before: Figures | None = None) -> str:
    """A line of the table; with `before`, how much recall and errors of the rest have changed since, in points."""
    line = (
        f"{name:{_WIDTH}s} {found.recall:7.1%} {found.rest:8.2%} {found.wer:7.2%} {found.false_alarms.sum():6d} "
        f"{found.cost:8.4f}"
    )
    if before is None:
        return line
    recall = interval((before.found, before.said), (found.found, found.said))
    rest = interval((before.other_errors, before.others), (found.other_errors, found.others))
    return (
        f"{line}   {_points(found.recall - before.recall, recall, 1):22s} {_points(found.rest - before.rest, rest, 2)}"
    )


def _points(change: float, limits: tuple[float, float], digits: int) -> str:
    low, high = (f"{100 * limit:+.{digits}f}" for limit in limits)
    return f"{100 * change:+.{digits}f} ({low} to {high})"


def report(
    space: SearchSpace,
    bundle: Bundle,
    dev: Sequence[DevUtterance],
    mode: Mode,
    *,
    boosts: Sequence[float],
    reported: float | None,
    count: int,
    more: int,
    seed: int,
) -> None:
    """Print the tables; `reported`: the boost of the reported half, None for that of `boosts` with the fewest errors,
    without `boosts` for what a server gives hints that name none.
    """
    assert bundle.lexicon is not None and bundle.lm_path is not None
    model = WordLanguageModel(bundle.lm_path, tuple(bundle.lexicon))
    rare = set(rare_words(dev, bundle.lexicon, model))
    halves = {"odd": dev[1::2], "even": dev[::2]}
    trials = {name: Trial(space, half, mode, bundle.streaming.chunk_frames) for name, half in halves.items()}
    drawn = {}
    print(f"mode {mode.value}")
    for name, half in halves.items():
        said = sorted(rare & {word for utterance in half for word in utterance.text.split()})
        drawn[name] = random.Random(seed).sample(said, min(count, len(said)))
        print(f"{name}: {len(half)} utterances, {len(drawn[name])} of {len(said)} rare words")
    others = distractors(dev, bundle.lexicon, model, more, seed)
    print(f"{'':{_WIDTH}s}                           false    CPU s   change, in points, since no hints")
    print(f"{'':{_WIDTH}s}  recall     rest     WER alarms  a second   recall                 rest")
    if boosts:
        trial, words = trials["odd"], drawn["odd"]
        before = trial.figures(words, [], None)
        print(row("odd, no hints", before), flush=True)
        results = {}
        for tried in boosts:
            results[tried] = trial.figures(words, [], _flat(tried))
            print(row(f"odd, boost {tried:g}", results[tried], before), flush=True)
        # The fewest errors in all: what words that were not said cost, and what words that were said save.
        reported = reported or min(boosts, key=lambda tried: (results[tried].wer, tried))
    boost: Boost = _flat(reported) if reported else PhraseHintSettings().boost
    name = f"{reported:g}" if reported else "default"
    trial, words = trials["even"], drawn["even"]
    before = trial.figures(words, [], None)
    print(row("even, no hints", before), flush=True)
    for label, added in ((f"even, boost {name}", []), (f"even, {name}, +{len(others)} others", others)):
        print(row(label, trial.figures(words, added, boost), before), flush=True)
    _report_unknown(Trial(space, dev, mode, bundle.streaming.chunk_frames), bundle.lexicon, others, boost, name)


def _flat(boost: float) -> Boost:
    """The same for each phrase."""
    return lambda phrase: boost  # noqa: ARG005


def _report_unknown(trial: Trial, lexicon: Lexicon, others: Sequence[str], boost: Boost, name: str) -> None:
    """The utterances with words that the lexicon lacks, and as many distractors as there are such words."""
    unknown = sorted({word for utterance in trial.dev for word in utterance.text.split() if word not in lexicon})
    having = [utterance for utterance in trial.dev if set(unknown) & set(utterance.text.split())]
    if not unknown:
        return
    trial = dataclasses.replace(trial, dev=having)
    before = trial.figures(unknown, [], None)
    print(f"{len(unknown)} words that the lexicon lacks, {len(having)} utterances with them")
    print(row("unknown, no hints", before), flush=True)
    print(row(f"unknown, boost {name}", trial.figures(unknown, others[: len(unknown)], boost), before), flush=True)


def main() -> None:
    parser = command_parser("hints_report", __doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="directory of the model")
    add_dev_options(parser, every=3)
    parser.add_argument("--mode", type=Mode, action="append", help="accurate or streaming; both without it")
    parser.add_argument("--words", type=positive, default=100, help="how many rare words of each half are expected")
    parser.add_argument("--distractors", type=positive, default=1000, help="words beside them; default: 1000")
    parser.add_argument("--boosts", type=float, nargs="*", default=[8.0, 11.0, 14.0, 17.0, 20.0], help="to try")
    parser.add_argument(
        "--boost", type=float, help="to report; without it the best of --boosts, and without these the server's"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the words that are drawn; default: 0")
    arguments = parser.parse_args()
    with told_in_one_line("hints_report"):
        _report_all(arguments)


def _report_all(arguments: argparse.Namespace) -> None:
    bundle = load_bundle(arguments.bundle)
    if bundle.lexicon is None or bundle.lm_path is None:
        raise ValueError(f"{arguments.bundle} has no lexicon or no language model")
    chosen = dev_set(arguments)
    space = SearchSpace(bundle)
    for mode in arguments.mode or list(Mode):
        report(
            space,
            bundle,
            posteriors(bundle, *chosen, mode, arguments.out),
            mode,
            boosts=arguments.boosts,
            reported=arguments.boost,
            count=arguments.words,
            more=arguments.distractors,
            seed=arguments.seed,
        )


if __name__ == "__main__":
    main()
