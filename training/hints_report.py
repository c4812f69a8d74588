"""What phrase hints do for rare words of dev: their recall, and the errors of all other words, by boost.

    python -m training.hints_report --bundle asr_service/models/en-s --every 1

The words are drawn (fixed seed) from those that occur once or twice in the texts, have four letters or more, are in the
lexicon and are rare to the n-gram (log10 p at most `RARE`). Odd utterances choose the boost, even ones are reported,
each with words of their own: without hints, with the words, and with distractors beside them: other words of the
lexicon, as rare and as long. Posteriors are those of `training.posteriors`, so that only the search runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from asr_service.decoding.language_model import WordLanguageModel
from asr_service.engine.interface import StreamOptions
from asr_service.engine.search_space import SearchSpace
from asr_service.evaluation.alignment import align, aligned_words
from asr_service.lexicon import Lexicon
from asr_service.model.bundle import Bundle, load_bundle
from asr_service.types import Mode, PhraseHint
from training.data import PcmStore, read_manifest, speech_dir
from training.posteriors import DevUtterance, posteriors

FRAME_S = 0.04
MIN_LETTERS = 4
MOST_OCCURRENCES = 2
RARE = -5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """Of one run over utterances: the expected words' recall, errors a word of all others, and of all words.

    Attributes:
        false_alarms: expected words that were heard where they were not said.
        cost: CPU seconds of the search per second of audio.
    """

    recall: float
    rest: float
    wer: float
    false_alarms: int
    cost: float


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
    space: SearchSpace, dev: Sequence[DevUtterance], mode: Mode, hints: Sequence[PhraseHint]
) -> tuple[list[str], float]:
    """The texts of `dev`, and the CPU seconds of the search per second of audio."""
    search = space.new_search(StreamOptions(mode, phrase_hints=tuple(hints)))
    texts, frames, started = [], 0, time.process_time()
    for utterance in dev:
        search.reset()
        search.step(utterance.encoded)
        found = search.final(offset_s=0.0)
        texts.append(found[0].text if found else "")
        frames += len(utterance.encoded.phones)
    return texts, (time.process_time() - started) / (frames * FRAME_S)


def figures(references: Sequence[str], texts: Sequence[str], expected: set[str], cost: float) -> Figures:
    """Recall of `expected`, and the errors elsewhere: all but those in which one of them was said and not heard."""
    pairs = [(reference.split(), text.split()) for reference, text in zip(references, texts, strict=True)]
    counts: Counter[str] = Counter()
    for (reference, heard), operations in zip(pairs, align(pairs), strict=True):
        for word in aligned_words(reference, heard, operations):
            counts["errors"] += word.operation != "C"
            counts["false alarms"] += word.operation != "C" and word.hypothesis in expected
            if word.reference in expected:
                counts["said"] += 1
                counts["found"] += word.operation == "C"
            else:
                counts["others"] += word.reference is not None
                counts["other errors"] += word.operation != "C"
    return Figures(
        counts["found"] / max(1, counts["said"]),
        counts["other errors"] / max(1, counts["others"]),
        counts["errors"] / max(1, counts["said"] + counts["others"]),
        counts["false alarms"],
        cost,
    )


def measured(
    space: SearchSpace, dev: Sequence[DevUtterance], mode: Mode, words: Sequence[str], more: Sequence[str], boost: float
) -> Figures:
    """With `words` and `more` as hints where `boost` is above 0; recall is that of `words`."""
    hints = [PhraseHint(word, boost) for word in (*words, *more) if boost > 0]
    texts, cost = recognise(space, dev, mode, hints)
    expected = {*words, *(hint.phrase for hint in hints)}
    found = figures([utterance.text for utterance in dev], texts, set(words), cost)
    alarms = figures([utterance.text for utterance in dev], texts, expected, cost).false_alarms
    return dataclasses.replace(found, false_alarms=alarms)


def row(name: str, found: Figures) -> str:
    return (
        f"{name:32s} {found.recall:7.1%} {found.rest:14.2%} {found.wer:7.2%} {found.false_alarms:13d} {found.cost:9.4f}"
    )


def report(
    space: SearchSpace,
    bundle: Bundle,
    dev: Sequence[DevUtterance],
    mode: Mode,
    *,
    boosts: Sequence[float],
    count: int,
    more: int,
    seed: int,
) -> None:
    """Print both tables."""
    assert bundle.lexicon is not None and bundle.lm_path is not None
    model = WordLanguageModel(bundle.lm_path, tuple(bundle.lexicon))
    rare = set(rare_words(dev, bundle.lexicon, model))
    halves = {"odd": dev[1::2], "even": dev[::2]}
    drawn = {}
    for name, half in halves.items():
        said = sorted(rare & {word for utterance in half for word in utterance.text.split()})
        drawn[name] = random.Random(seed).sample(said, min(count, len(said)))
        print(f"{name}: {len(half)} utterances, {len(drawn[name])} of {len(said)} rare words")
    others = distractors(dev, bundle.lexicon, model, more, seed)
    print(f"\n{mode.value} search{'':17s}  recall  WER, all other     WER  false alarms  CPU s/s")
    results = {boost: measured(space, halves["odd"], mode, drawn["odd"], [], boost) for boost in (0.0, *boosts)}
    for boost, found in results.items():
        print(row(f"odd, boost {boost:g}" if boost else "odd, no hints", found), flush=True)
    # The fewest errors in all: what words that were not said cost, and what words that were said save.
    best = min(boosts, key=lambda boost: (results[boost].wer, boost))
    even, words = halves["even"], drawn["even"]
    for name, added, boost in (
        ("even, no hints", [], 0.0),
        (f"even, boost {best:g}", [], best),
        (f"even, boost {best:g}, +{len(others)} others", others, best),
    ):
        print(row(name, measured(space, even, mode, words, added, boost)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/tune"), help="folder for the posteriors")
    parser.add_argument("--pcm", type=Path, default=Path("runs/pcm/dev"), help="decoded dev audio (training.data)")
    parser.add_argument("--mode", type=Mode, default=Mode.ACCURATE)
    parser.add_argument("--every", type=int, default=1, help="take every k-th utterance")
    parser.add_argument("--words", type=int, default=100, help="how many rare words of each half are expected")
    parser.add_argument("--distractors", type=int, default=1000)
    parser.add_argument("--boosts", type=float, nargs="+", default=[4.0, 6.0, 8.0, 10.0, 12.0])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    if bundle.lexicon is None or bundle.lm_path is None:
        raise SystemExit(f"{arguments.bundle} has no lexicon or no language model")
    utterances = read_manifest(speech_dir() / "dev.jsonl")
    store = PcmStore.build(utterances, arguments.pcm)
    rows = [i for i, utterance in enumerate(utterances) if utterance.corpus.startswith("librispeech")]
    dev = posteriors(bundle, utterances, store, rows[:: arguments.every], arguments.mode, arguments.out)
    report(
        SearchSpace(bundle),
        bundle,
        dev,
        arguments.mode,
        boosts=arguments.boosts,
        count=arguments.words,
        more=arguments.distractors,
        seed=arguments.seed,
    )


if __name__ == "__main__":
    main()
