"""Fit a bundle's word confidences on dev, and judge them on speakers that were not used to fit them.

    python -m training.calibrate --bundle asr_service/models/en-s --every 3
    python -m training.calibrate --bundle BUNDLE --manifest data/dev.jsonl --every 1

For each mode: every k-th utterance of dev is recognised, and a logistic regression learns from what is known of each
word (`asr_service.decoding.confidence.FEATURES`) whether it is right. What is fitted on all speakers but one is judged
on that one, and that is what the tables show: expected calibration error and area under the ROC curve of each part of
dev, with intervals, reliability, and what each feature buys; "by the rest" is fitted without any speaker of that part,
as for rooms that nobody has heard. What goes into the bundle's config.json (`decoding.confidence`) is fitted on all of
them. Posteriors are computed once and kept in --out.
"""

# Dimensions: W words, F features.

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from asr_service.decoding.confidence import FEATURES, ConfidenceWeights, posteriors, word_confidences
from asr_service.decoding.config import DecodingConfig
from asr_service.decoding.prefix_scores import attention_scores
from asr_service.engine.interface import StreamOptions
from asr_service.engine.runner import Encoded
from asr_service.engine.search_space import SearchSpace
from asr_service.evaluation.alignment import align
from asr_service.evaluation.calibration import Calibration, judge
from asr_service.model.bundle import CONFIG_FILE, Bundle, load_bundle
from asr_service.types import Mode
from training import posteriors as dev_posteriors
from training.atomic import atomic_text
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.data import Utterance
from training.dev_set import add_dev_options, dev_set
from training.logistic import CannotJudge, cross_fitted, fit, log_loss

_DRAWS = 200


@dataclass(frozen=True, slots=True)
class HeardWords:
    """Every word of the best hypotheses of some utterances.

    Attributes:
        features: (W, F) in the order of `FEATURES`.
        posteriors: (W,) in the n-best list: the confidence of a bundle without weights.
        right: (W,) by the alignment with the reference.
        speakers, corpora, utterances: (W,) of each word's utterance.
    """

    features: NDArray[np.float64]
    posteriors: NDArray[np.float64]
    right: NDArray[np.bool_]
    speakers: NDArray[np.str_]
    corpora: NDArray[np.str_]
    utterances: NDArray[np.int64]


def stretches(encoded: Encoded, mode: Mode, chunk_frames: int) -> Iterator[Encoded]:
    """An utterance as the engine hands it to the search: whole, or in chunks of `chunk_frames` (40 ms) frames."""
    if mode is Mode.ACCURATE:
        yield encoded
        return
    for begin in range(0, len(encoded.phones), chunk_frames):
        end = begin + chunk_frames
        of_pieces = slice(begin // 2, end // 2)
        yield Encoded(encoded.phones[begin:end], encoded.pieces[of_pieces], encoded.hidden[of_pieces])


def hear(
    bundle: Bundle, utterances: Sequence[Utterance], dev: Sequence[dev_posteriors.DevUtterance], mode: Mode
) -> HeardWords:
    """Recognise `dev`, the posteriors of `utterances`.

    Raises ValueError for a bundle without n-gram or lexicon, and where no word is heard.
    """
    space, config = SearchSpace(bundle), DecodingConfig.from_dict(bundle.decoding)
    if space.word_features is None:
        raise ValueError(f"{bundle.directory} has no lexicon or no language model: its confidences have no weights")
    search = space.new_search(StreamOptions(mode))
    features: list[NDArray[np.float64]] = []
    sure: list[float] = []
    right: list[bool] = []
    speakers: list[str] = []
    corpora: list[str] = []
    places: list[int] = []
    progress = tqdm(dev, desc=f"searching ({mode.value})", mininterval=5)
    for place, (utterance, known) in enumerate(zip(utterances, progress, strict=True)):
        search.reset()
        for stretch in stretches(known.encoded, mode, bundle.streaming.chunk_frames):
            search.step(stretch)
        found = search.n_best()
        if not found or not found[0][0]:
            continue
        n_best, scores = [words for words, _ in found], [score for _, score in found]
        words, encoded = n_best[0], known.encoded
        attention = attention_scores(bundle.model.decoder, encoded.hidden)
        features.append(
            space.word_features(
                words, n_best, scores, phones=encoded.phones, pieces=encoded.pieces, attention=attention
            )
        )
        sure += word_confidences(words, n_best, posteriors(scores, config.confidence_scale).tolist())
        operations = align([(utterance.text.split(), [word.text for word in words])])[0]
        right += [operation == "C" for operation in operations if operation != "D"]
        speakers += [utterance.speaker] * len(words)
        corpora += [utterance.corpus] * len(words)
        places += [place] * len(words)
    if not right:
        raise ValueError(f"no word is heard in {len(dev)} utterances ({mode.value}): no confidence can be fitted")
    return HeardWords(
        np.concatenate(features),
        np.array(sure),
        np.array(right),
        np.array(speakers),
        np.array(corpora),
        np.array(places),
    )


def report(heard: HeardWords, mode: Mode) -> None:
    """Print how sure and how right: by part of dev, by confidence, and without each feature.

    Raises CannotJudge where no speaker's words can be judged by weights fitted on all others'.
    """
    parts = [(name, heard.corpora == name) for name in sorted(set(heard.corpora.tolist()))]
    for name, part in parts:
        speakers = sorted(set(heard.speakers[part].tolist()))
        print(
            f"{_short(name)}: {part.sum()} words, {heard.right[part].mean():.1%} right, "
            f"{len(speakers)} speakers ({', '.join(speakers)})"
        )
    fitted = cross_fitted(heard.features, heard.right, heard.speakers)
    print(f"\n{mode.value}: each speaker's words judged by weights fitted on all other speakers; 95 % intervals")
    print(f"{'':24s}          {'n-best posterior':>16s}  {'fitted':>12s} {'':26s} {'ECE by':>8s}")
    print(
        f"{'words of':24s}   words  {'ECE':>9s} {'AUC':>6s}  {'ECE':>5s} {'':14s} {'AUC':>5s} {'':14s} {'chance':>8s}"
    )
    everyone = np.ones(len(heard.right), dtype=bool)
    for name, part in [("all", everyone), *parts]:
        _print_part(name, heard, part, fitted)
    for name, part in parts:
        # What other rooms and accents would see: nothing of this part was known.
        if len(set(heard.right[~part].tolist())) < 2:
            continue
        strange = np.zeros(len(heard.right))
        strange[part] = fit(heard.features[~part], heard.right[~part]).probabilities(heard.features[part])
        _print_part(f"{_short(name)}, by the rest", heard, part, strange)
    print("\nconfidence  share right  words")
    for row in judge(fitted, heard.right).bins:
        print(f"{row.confidence:10.3f}  {row.accuracy:11.3f}  {row.words:5d}")
    print("\nfeatures                   ECE    AUC  log loss")
    for name, names in [("all", FEATURES), *((f"without {name}", _without(name)) for name in FEATURES)]:
        chances = cross_fitted(heard.features, heard.right, heard.speakers, names)
        judged = judge(chances, heard.right)
        print(f"{name:22s}  {judged.ece:6.3f} {_auc(judged)}  {log_loss(chances, heard.right):8.4f}", flush=True)


def _print_part(name: str, heard: HeardWords, part: NDArray[np.bool_], confidences: NDArray[np.float64]) -> None:
    right = heard.right[part]
    before, after = judge(heard.posteriors[part], right), judge(confidences[part], right)
    ece, auc = intervals(confidences[part], right, heard.utterances[part])
    print(
        f"{_short(name):24s}  {after.words:6d}  {before.ece:9.3f} {_auc(before)}  {after.ece:5.3f} {ece:14s} "
        f"{_auc(after)[1:]} {auc:14s} {chance_ece(confidences[part]):8.3f}",
        flush=True,
    )


def intervals(
    confidences: NDArray[np.float64], right: NDArray[np.bool_], utterances: NDArray[np.int64]
) -> tuple[str, str]:
    """95 % of ECE and of AUC when utterances are drawn again and again; "-" for an AUC that some draw does not have.

    A drawn set repeats utterances, so that its bins are rougher: its ECE is a little too high.
    """
    rng = np.random.default_rng(0)
    starts = [np.flatnonzero(utterances == utterance) for utterance in np.unique(utterances)]
    eces, aucs = [], []
    for _ in range(_DRAWS):
        words = np.concatenate([starts[place] for place in rng.integers(0, len(starts), len(starts))])
        judged = judge(confidences[words], right[words])
        eces.append(judged.ece)
        aucs.append(np.nan if judged.auc is None else judged.auc)
    found = []
    for values in (eces, aucs):
        low, high = np.quantile(values, (0.025, 0.975))
        found.append("-" if np.isnan(low) else f"({low:.3f}-{high:.3f})")
    return found[0], found[1]


def chance_ece(confidences: NDArray[np.float64], *, draws: int = 50, seed: int = 0) -> float:
    """The mean ECE where each word is right with the chance that its confidence says: few words never fit exactly."""
    rng = np.random.default_rng(seed)
    return float(np.mean([judge(confidences, rng.random(len(confidences)) < confidences).ece for _ in range(draws)]))


def write_weights(directory: Path, mode: Mode, weights: ConfidenceWeights) -> None:
    """Put `weights` into the bundle's config.json; all else there stays."""
    path = directory / CONFIG_FILE
    config = json.loads(path.read_text(encoding="utf-8"))
    config["decoding"].setdefault("confidence", {})[mode.value] = dataclasses.asdict(weights)
    with atomic_text(path) as file:
        file.write(json.dumps(config, indent=2) + "\n")


def _without(name: str) -> tuple[str, ...]:
    return tuple(other for other in FEATURES if other != name)


def _short(name: str) -> str:
    return name.removeprefix("librispeech_")


def _auc(judged: Calibration) -> str:
    return "   -  " if judged.auc is None else f"{judged.auc:6.3f}"


def main() -> None:
    parser = command_parser("calibrate", __doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="its config.json is rewritten")
    parser.add_argument("--mode", type=Mode, action="append", help="accurate or streaming; both without it")
    add_dev_options(parser, every=3)
    parser.add_argument("--only-report", action="store_true", help="leave config.json as it is")
    arguments = parser.parse_args()
    with told_in_one_line("calibrate"):
        _calibrate(arguments)


def _calibrate(arguments: argparse.Namespace) -> None:
    bundle = load_bundle(arguments.bundle)
    utterances, store, rows = dev_set(arguments)
    for mode in arguments.mode or list(Mode):
        dev = dev_posteriors.posteriors(bundle, utterances, store, rows, mode, arguments.out)
        heard = hear(bundle, [utterances[row] for row in rows], dev, mode)
        weights = fit(heard.features, heard.right)
        try:
            report(heard, mode)
        except CannotJudge as error:
            print(f"{mode.value}: how good the confidences are is not known: {error}")
        print(f"\nfitted on all: {json.dumps(dataclasses.asdict(weights))}\n", flush=True)
        if not arguments.only_report:
            write_weights(arguments.bundle, mode, weights)


if __name__ == "__main__":
    main()
