"""Fit a bundle's word confidences on dev, and judge them on speakers that were not used to fit them.

    python -m training.calibrate --bundle asr_service/models/en-s --every 3

For each mode: every k-th LibriSpeech utterance of dev is recognised, and a logistic regression learns from what is
known of each word (`asr_service.decoding.confidence.FEATURES`) whether it is right. The speakers of each part are dealt
into two halves; what is fitted on either half is judged on the other, and that is what the tables show: expected
calibration error, area under the ROC curve, reliability, and what each feature buys. What goes into the bundle's
config.json (`decoding.confidence`) is fitted on all of them. Posteriors are computed once and kept in --out.

Dimensions: W words, F features.
"""

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
from asr_service.engine.interface import StreamOptions
from asr_service.engine.runner import Encoded
from asr_service.engine.search_space import SearchSpace
from asr_service.evaluation.alignment import align
from asr_service.evaluation.calibration import Calibration, judge
from asr_service.model.bundle import CONFIG_FILE, Bundle, load_bundle
from asr_service.types import Mode
from training import posteriors as dev_posteriors
from training.atomic import atomic_text
from training.data import PcmStore, Utterance, read_manifest, speech_dir
from training.logistic import cross_fitted, fit, halves, log_loss


@dataclass(frozen=True, slots=True)
class HeardWords:
    """Every word of the best hypotheses of some utterances.

    Attributes:
        features: (W, F) in the order of `FEATURES`.
        posteriors: (W,) in the n-best list: the confidence of a bundle without weights.
        right: (W,) by the alignment with the reference.
        speakers, corpora: (W,) of each word's utterance.
    """

    features: NDArray[np.float64]
    posteriors: NDArray[np.float64]
    right: NDArray[np.bool_]
    speakers: NDArray[np.str_]
    corpora: NDArray[np.str_]


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
    """Recognise `dev`, the posteriors of `utterances`. Raises ValueError for a bundle without n-gram or lexicon."""
    space, config = SearchSpace(bundle), DecodingConfig.from_dict(bundle.decoding)
    if space.word_features is None:
        raise ValueError(f"{bundle.directory} has no lexicon or no language model: its confidences have no weights")
    search = space.new_search(StreamOptions(mode))
    features: list[NDArray[np.float64]] = []
    sure: list[float] = []
    right: list[bool] = []
    speakers: list[str] = []
    corpora: list[str] = []
    for utterance, known in zip(utterances, tqdm(dev, desc=f"searching ({mode.value})", mininterval=5), strict=True):
        search.reset()
        for stretch in stretches(known.encoded, mode, bundle.streaming.chunk_frames):
            search.step(stretch)
        found = search.n_best()
        if not found:
            continue
        n_best, scores = [words for words, _ in found], [score for _, score in found]
        words, encoded = n_best[0], known.encoded
        features.append(
            space.word_features(
                words, n_best, scores, phones=encoded.phones, pieces=encoded.pieces, hidden=encoded.hidden
            )
        )
        sure += word_confidences(words, n_best, posteriors(scores, config.confidence_scale).tolist())
        operations = align([(utterance.text.split(), [word.text for word in words])])[0]
        right += [operation == "C" for operation in operations if operation != "D"]
        speakers += [utterance.speaker] * len(words)
        corpora += [utterance.corpus] * len(words)
    return HeardWords(np.concatenate(features), np.array(sure), np.array(right), np.array(speakers), np.array(corpora))


def report(heard: HeardWords, mode: Mode) -> None:
    """Print how sure and how right: by part of dev, by confidence, and without each feature."""
    second = halves(heard.speakers.tolist(), heard.corpora.tolist())
    for name, half in (("first", ~second), ("second", second)):
        who = ", ".join(sorted(set(heard.speakers[half].tolist())))
        print(f"{name} half: speakers {who} ({half.sum()} words, {heard.right[half].mean():.1%} right)")
    fitted = cross_fitted(heard.features, heard.right, second)
    print(
        f"\n{mode.value}: judged on the half that was not used to fit; by chance: the ECE of confidences without fault"
    )
    print(f"{'':24s}  {'':6s}  {'n-best posterior':>16s}  {'fitted':>14s}  {'by chance':>9s}")
    print(f"{'words of':24s}  {'words':>6s}  {'ECE':>9s} {'AUC':>6s}  {'ECE':>7s} {'AUC':>6s}  {'ECE':>9s}")
    everyone = np.ones(len(heard.right), dtype=bool)
    parts = [("all", everyone)] + [(name, heard.corpora == name) for name in sorted(set(heard.corpora.tolist()))]
    for name, part in [*parts, ("first half of speakers", ~second), ("second half of speakers", second)]:
        before, after = judge(heard.posteriors[part], heard.right[part]), judge(fitted[part], heard.right[part])
        print(
            f"{name.removeprefix('librispeech_'):24s}  {after.words:6d}  {before.ece:9.3f} {_auc(before)}  "
            f"{after.ece:7.3f} {_auc(after)}  {chance_ece(fitted[part]):9.3f}"
        )
    print("\nconfidence  share right  words")
    for row in judge(fitted, heard.right).bins:
        print(f"{row.confidence:10.3f}  {row.accuracy:11.3f}  {row.words:5d}")
    print("\nfeatures                   ECE    AUC  log loss")
    for name, names in [("all", FEATURES), *((f"without {name}", _without(name)) for name in FEATURES)]:
        chances = cross_fitted(heard.features, heard.right, second, names)
        judged = judge(chances, heard.right)
        print(f"{name:22s}  {judged.ece:6.3f} {_auc(judged)}  {log_loss(chances, heard.right):8.4f}", flush=True)


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


def _auc(judged: Calibration) -> str:
    return "   -  " if judged.auc is None else f"{judged.auc:6.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="its config.json is rewritten")
    parser.add_argument("--mode", type=Mode, action="append", help="accurate or streaming; both without it")
    parser.add_argument("--every", type=int, default=3, help="take every k-th utterance")
    parser.add_argument("--out", type=Path, default=Path("runs/tune"), help="folder for the posteriors")
    parser.add_argument("--pcm", type=Path, default=Path("runs/pcm/dev"), help="decoded dev audio (training.data)")
    parser.add_argument("--only-report", action="store_true", help="leave config.json as it is")
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    utterances = read_manifest(speech_dir() / "dev.jsonl")
    store = PcmStore.build(utterances, arguments.pcm)
    rows = [i for i, utterance in enumerate(utterances) if utterance.corpus.startswith("librispeech")]
    rows = rows[:: arguments.every]
    for mode in arguments.mode or list(Mode):
        dev = dev_posteriors.posteriors(bundle, utterances, store, rows, mode, arguments.out)
        heard = hear(bundle, [utterances[row] for row in rows], dev, mode)
        report(heard, mode)
        weights = fit(heard.features, heard.right)
        print(f"\nfitted on all: {json.dumps(dataclasses.asdict(weights))}\n", flush=True)
        if not arguments.only_report:
            write_weights(arguments.bundle, mode, weights)


if __name__ == "__main__":
    main()
