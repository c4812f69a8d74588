"""Tune a bundle's search on dev: weights of the lexicon beam, then of the final ranking; prints tables of WER.

    python -m training.tune_decoding --bundle asr_service/models/en-s --out runs/tune --every 6
    python -m training.tune_decoding --bundle BUNDLE --manifest data/dev.jsonl --every 1

Posteriors are computed once and kept in --out. What is found is printed as it stands in the bundle's config.json, which
stays as it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from asr_service.commands.option_types import positive
from asr_service.decoding.config import DecodingConfig
from asr_service.decoding.ctc_prefix_beam import CtcPrefixBeam, PrefixBeamOptions
from asr_service.decoding.greedy import greedy
from asr_service.decoding.joint_beam import JointBeamOptions, joint_beam_search
from asr_service.decoding.lexicon_beam import LexiconBeam, LexiconBeamOptions
from asr_service.decoding.prefix_scores import PrefixScores, attention_scores, internal_lm_scores
from asr_service.decoding.pronunciation_tree import PronunciationTree
from asr_service.decoding.rescoring import NO_ALIGNMENT, RescoringWeights, ctc_log_likelihoods
from asr_service.decoding.spelling import Spelling
from asr_service.decoding.timing import WordGraph
from asr_service.engine.frames import PHONE_FRAME_S
from asr_service.engine.runner import Encoded
from asr_service.lexicon import Lexicon, phone_ids
from asr_service.model.bundle import CONFIG_FILE, Bundle, load_bundle
from asr_service.parts import at_once
from asr_service.types import Mode
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.data import PcmStore, Utterance
from training.dev_set import add_dev_options, dev_set
from training.likelihoods import log_likelihoods, words_log_likelihood
from training.posteriors import DevUtterance, posteriors
from training.ranking import FEATURES, IN_CONFIG, ranked_errors, tune_ranking, worth_reading

# Utterances, their samples, and the rows of those that are chosen: what `dev_set` gives.
Chosen = tuple[list[Utterance], PcmStore, list[int]]
# Before the row of the ranking whose weights a bundle should get.
CHOSEN = ">"
LOWER_PHONES = (0.0, 0.1, 0.2, 0.3)
MARGINS = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, float("inf"))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A hypothesis of one utterance: its word errors, its source, and its features in the order of `FEATURES`."""

    text: str
    errors: int
    source: str
    features: tuple[float, ...]


def _percent(share: float) -> str:
    return f"{100 * share:6.2f} %"


def first_pass(
    tree: PronunciationTree, dev: Sequence[DevUtterance], options: LexiconBeamOptions
) -> tuple[float, float]:
    """(WER, real-time factor) of the lexicon beam's best hypotheses."""
    beam = LexiconBeam(tree, options)
    errors = words = frames = 0
    started = time.process_time()
    for utterance in dev:
        beam.begin()
        beam.step(utterance.encoded.phones)
        found = beam.finish(1)
        errors += Levenshtein.distance(found[0].texts if found else (), utterance.text.split())
        words += len(utterance.text.split())
        frames += len(utterance.encoded.phones)
    return errors / words, (time.process_time() - started) / (frames * PHONE_FRAME_S)


def tune_first_pass(
    tree: PronunciationTree, dev: Sequence[DevUtterance], start: LexiconBeamOptions
) -> LexiconBeamOptions:
    """Grid over the language model's weight and the word score, then the beam's width at the best of them."""
    print("\nlexicon beam: WER by language-model weight (rows) and word score (columns)")
    scores = (-1.0, 0.0, 1.0)
    print("lm_weight  " + "  ".join(f"{score:8.1f}" for score in scores))
    results = {}
    for weight in (0.7, 0.9, 1.1, 1.3):
        for score in scores:
            options = dataclasses.replace(start, lm_weight=weight, word_score=score)
            results[weight, score] = first_pass(tree, dev, options)[0]
        print(f"{weight:9.1f}  " + "  ".join(_percent(results[weight, score]) for score in scores), flush=True)
    weight, score = min(results, key=results.__getitem__)
    best = dataclasses.replace(start, lm_weight=weight, word_score=score)
    print("\nbeam  tokens  threshold  log_add       WER      RTF")
    for beam, tokens, threshold, log_add in (
        (100, 10, 14.0, False),
        (100, 10, 14.0, True),
        (200, 10, 14.0, True),
        (200, 10, 20.0, True),
        (400, 10, 20.0, True),
    ):
        options = dataclasses.replace(
            best, beam_size=beam, beam_size_token=tokens, beam_threshold=threshold, log_add=log_add
        )
        rate, cost = first_pass(tree, dev, options)
        print(f"{beam:4d}  {tokens:6d}  {threshold:9.0f}  {log_add!s:7s}  {_percent(rate)}  {cost:7.4f}", flush=True)
    return best


def report_lower_phones(
    bundle: Bundle, tree: PronunciationTree, chosen: Chosen, mode: Mode, folder: Path, options: LexiconBeamOptions
) -> None:
    """What `decoding.lower_phones` does to the lexicon beam's best hypotheses."""
    print("\nlower_phones       WER")
    for share in LOWER_PHONES:
        mixed = dataclasses.replace(bundle, decoding=bundle.decoding | {"lower_phones": share})
        rate, _ = first_pass(tree, posteriors(mixed, *chosen, mode, folder), options)
        print(f"{share:12.1f}  {_percent(rate)}", flush=True)


def candidates(
    bundle: Bundle,
    tree: PronunciationTree,
    lexicon: Lexicon,
    utterance: DevUtterance,
    options: LexiconBeamOptions,
    n_best: int,
) -> list[Candidate]:
    """The n-best lists of the lexicon beam and of the joint beam, with the features of each hypothesis."""
    encoded, reference = utterance.encoded, utterance.text.split()
    beam = LexiconBeam(tree, options)
    beam.step(encoded.phones)
    pronounced = {hypothesis.texts: hypothesis.phone_ids for hypothesis in beam.finish(n_best)}
    sources = dict.fromkeys(pronounced, "lexicon")
    for text in joint_texts(bundle, encoded, JointBeamOptions()):
        sources.setdefault(tuple(text.split()), "joint")
    tokens = [bundle.pieces.encode(" ".join(words)) for words in sources]
    attention = log_likelihoods(attention_scores(bundle.model.decoder, encoded.hidden), tokens).tolist()
    internal = log_likelihoods(internal_lm_scores(bundle.model.decoder), tokens).tolist()
    pieces = ctc_log_likelihoods(torch.from_numpy(encoded.pieces), tokens).tolist()
    phones = phone_log_likelihoods(encoded.phones, list(sources), pronounced, lexicon)
    neural = [0.0] * len(sources)
    if bundle.neural_lm is not None:
        model, own_pieces = bundle.neural_lm
        texts = [own_pieces.encode(" ".join(words)) for words in sources]
        neural = log_likelihoods(PrefixScores(model, model.start_tree()), texts).tolist()
    found = []
    for (words, source), of_phones, of_neural, of_pieces, of_attention, of_internal in zip(
        sources.items(), phones, neural, pieces, attention, internal, strict=True
    ):
        features = (
            max(of_phones, NO_ALIGNMENT),
            tree.language_model.sentence(words),
            tree.language_model.without_context(words),
            of_neural,
            float(len(words)),
            max(of_pieces, NO_ALIGNMENT),
            of_attention,
            of_internal,
            float(sum(word not in lexicon for word in words)),
        )
        found.append(Candidate(" ".join(words), Levenshtein.distance(words, reference), source, features))
    return found


def joint_texts(
    bundle: Bundle, encoded: Encoded, options: JointBeamOptions, spelling: Spelling | None = None
) -> list[str]:
    """The joint beam's hypotheses, best first."""
    found = at_once(
        joint_beam_search(
            bundle.model.decoder,
            encoded.hidden,
            torch.from_numpy(encoded.pieces),
            bos_id=bundle.pieces.bos_id,
            eos_id=bundle.pieces.eos_id,
            options=options,
            spelling=spelling,
        )
    )
    return [bundle.pieces.decode(hypothesis.token_ids) for hypothesis in found]


def phone_log_likelihoods(
    log_probs: np.ndarray,
    texts: Sequence[tuple[str, ...]],
    pronounced: Mapping[tuple[str, ...], Sequence[int]],
    lexicon: Lexicon,
) -> list[float]:
    """Of each text under the phone CTC's `log_probs` (T4, N): as it is `pronounced`, else in all the lexicon's ways."""
    known = [words for words in texts if words in pronounced]
    exact = ctc_log_likelihoods(torch.from_numpy(log_probs), [pronounced[words] for words in known]).tolist()
    found = dict(zip(known, exact, strict=True))
    for words in texts:
        if words not in found:
            graph = WordGraph([[phone_ids(entry) for entry in lexicon.get(word)] for word in words])
            found[words] = words_log_likelihood(log_probs, graph)
    return [found[words] for words in texts]


def ranking_lists(found: Sequence[Sequence[Candidate]], sources: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(features (n, F), errors (n,)) of each utterance's candidates from `sources`, of all where there are none."""
    lists = []
    for utterance in found:
        kept = [candidate for candidate in utterance if candidate.source in sources] or utterance
        lists.append((np.array([c.features for c in kept]), np.array([c.errors for c in kept])))
    return lists


def report_ranking(found: Sequence[Sequence[Candidate]], dev: Sequence[DevUtterance], features: Sequence[str]) -> None:
    """WER for each useful set of these `features` and of sources, tuned on these utterances; the chosen row is marked.

    Weights tuned on one half and counted on the other ("x-val") show how far that overfits.
    """
    words = sum(len(utterance.text.split()) for utterance in dev)
    print(f"\nranking of {sum(map(len, found)) / len(found):.1f} hypotheses an utterance, {len(dev)} utterances")
    trials = (
        (("lexicon",), ("phones", "lm", "words")),
        (("lexicon",), ("phones", "lm", "words", "pieces")),
        (("lexicon",), ("phones", "lm", "words", "attention")),
        (("lexicon",), ("phones", "lm", "words", "pieces", "attention")),
        (("lexicon",), ("phones", "lm", "neural", "words", "pieces", "attention")),
        (("lexicon",), ("phones", "lm", "neural", "words", "attention", "internal")),
        (("lexicon",), ("phones", "lm", "unigram", "neural", "words", "attention", "internal")),
        (("lexicon",), ("phones", "neural", "words", "pieces", "attention")),
        (("lexicon", "joint"), FEATURES),
        (("lexicon", "joint"), ("lm", "words", "pieces", "attention")),
        (("joint",), ("lm", "words", "pieces", "attention")),
    )
    rows: list[tuple[str, str, int, int, str]] = []
    for sources, free in dict.fromkeys((used, tuple(name for name in of if name in features)) for used, of in trials):
        lists = ranking_lists(found, sources)
        weights, errors = tune_ranking(lists, free)
        crossed = 0
        for held_out in (0, 1):
            trained, _ = tune_ranking(lists[1 - held_out :: 2], free, restarts=3)
            crossed += ranked_errors(lists[held_out::2], np.array([trained[name] for name in FEATURES]))
        # Where it was not ranked by, `unknown` keeps its value: the lexicon beam's hypotheses have no such words.
        named = [name for name in FEATURES if name in free or name != "unknown"]
        shown = json.dumps({IN_CONFIG[name]: round(weights[name], 2) for name in named})
        rows.append(("+".join(sources), "+".join(free), errors, crossed, shown))
    source_width, width = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    # What is served ranks the lexicon beam's hypotheses.
    best = min((row for row in rows if row[0] == "lexicon"), key=lambda row: row[3])
    print(f"  {'sources':{source_width}s} {'features':{width}s} {'WER':>8s} {'x-val':>8s}  weights")
    for row in rows:
        names, free_names, errors, crossed, shown = row
        rates = f"{_percent(errors / words)} {_percent(crossed / words)}"
        print(f"{CHOSEN if row is best else ' '} {names:{source_width}s} {free_names:{width}s} {rates}  {shown}")
    oracle = sum(min(candidate.errors for candidate in utterance) for utterance in found)
    lexical = sum(min(c.errors for c in utterance if c.source == "lexicon") for utterance in found)
    shares = [_percent(errors / words).strip() for errors in (lexical, oracle)]
    print(f"best hypothesis of each list: lexicon beam {shares[0]}, with joint beam {shares[1]}")


def report_margins(
    lists: Sequence[tuple[np.ndarray, np.ndarray]], dev: Sequence[DevUtterance], weights: RescoringWeights
) -> None:
    """What `decoding.neural_margin` leaves to read and costs in WER, with the weights that the bundle has now."""
    words = sum(len(utterance.text.split()) for utterance in dev)
    by_feature = np.array([getattr(weights, name) for name in IN_CONFIG.values()])
    print("\nneural_margin    read       WER, with the bundle's decoding.rescoring")
    for margin in MARGINS:
        kept = [worth_reading(features, by_feature, margin) for features, _ in lists]
        left = [(features[rows], errors[rows]) for (features, errors), rows in zip(lists, kept, strict=True)]
        read = sum(int(rows.sum()) for rows in kept) / len(lists)
        print(f"{margin:13.0f}  {read:6.1f}  {_percent(ranked_errors(left, by_feature) / words)}")


def report_alone(bundle: Bundle, tree: PronunciationTree, dev: Sequence[DevUtterance]) -> None:
    """What each part does alone."""
    words = sum(len(utterance.text.split()) for utterance in dev)
    names = ("pieces, greedy", "pieces, prefix beam", "pieces, prefix beam + LM", "joint beam", "joint beam, spelling")
    totals = dict.fromkeys(names, 0)
    options = JointBeamOptions()
    spelling = Spelling(tree.words, bundle.pieces.pieces, options.unknown)
    prefix = CtcPrefixBeam(bundle.pieces.pieces, PrefixBeamOptions(lm_weight=0.0, word_score=0.0))
    with_lm = CtcPrefixBeam(bundle.pieces.pieces, PrefixBeamOptions(), tree.language_model)
    for utterance in dev:
        encoded, reference = utterance.encoded, utterance.text.split()
        path = bundle.pieces.decode([token.token_id for token in greedy(encoded.pieces)])
        answers = [path.split()]
        for beam in (prefix, with_lm):
            beam.begin()
            beam.step(encoded.pieces)
            answers.append(list(beam.finish(1)[0].texts))
        answers += [joint_texts(bundle, encoded, options, wanted)[0].split() for wanted in (None, spelling)]
        for name, answer in zip(totals, answers, strict=True):
            totals[name] += Levenshtein.distance(answer, reference)
    print("\neach alone, untuned")
    for name, errors in totals.items():
        print(f"{name:26s} {_percent(errors / words)}")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("tune_decoding", __doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="directory of the model")
    add_dev_options(parser, every=6)
    parser.add_argument("--mode", type=Mode, default=Mode.ACCURATE, help="accurate or streaming")
    parser.add_argument("--tuning-beam", type=positive, default=60, help="beam of the grid over weights")
    parser.add_argument("--beam", type=positive, default=400, help="beam of the lists that are ranked")
    parser.add_argument("--beam-threshold", type=float, default=20.0, help="its threshold")
    parser.add_argument("--n-best", type=positive, default=100, help="hypotheses of a list; default: 100")
    parser.add_argument("--lexicon", type=Path, help="instead of the bundle's")
    parser.add_argument("--lm", type=Path, help="instead of the bundle's")
    parser.add_argument("--only-first-pass", action="store_true", help="leave the final ranking out")
    return parser


def main() -> None:
    with told_in_one_line("tune_decoding"):
        _tune(_parser().parse_args())


def _tune(arguments: argparse.Namespace) -> None:
    bundle = load_bundle(arguments.bundle)
    lexicon = Lexicon.load(arguments.lexicon) if arguments.lexicon else bundle.lexicon
    lm_path = arguments.lm or bundle.lm_path
    if lexicon is None or lm_path is None:
        raise ValueError(f"{arguments.bundle} has no lexicon or no language model: nothing to tune")
    chosen = dev_set(arguments)
    dev = posteriors(bundle, *chosen, arguments.mode, arguments.out)
    tree = PronunciationTree(lexicon, lm_path)
    print(f"{len(dev)} utterances, {arguments.mode.value}, {len(lexicon)} words, {lm_path.stat().st_size / 1e6:.1f} MB")
    # A narrow beam ranks the weights as a wide one does, at a quarter of the cost.
    best = tune_first_pass(tree, dev, LexiconBeamOptions(beam_size=arguments.tuning_beam))
    report_lower_phones(bundle, tree, chosen, arguments.mode, arguments.out, best)
    best = dataclasses.replace(best, beam_size=arguments.beam, beam_threshold=arguments.beam_threshold)
    found_weights = {"lm_weight": best.lm_weight, "word_score": best.word_score}
    print(f"\ninto {arguments.bundle / CONFIG_FILE}, where all else stays:")
    print(json.dumps({"decoding": {arguments.mode.value: found_weights}}))
    if arguments.only_first_pass:
        return
    with torch.inference_mode():
        report_alone(bundle, tree, dev)
        found = [candidates(bundle, tree, lexicon, utterance, best, arguments.n_best) for utterance in dev]
    report_ranking(found, dev, [name for name in FEATURES if name != "neural" or bundle.neural_lm is not None])
    if bundle.neural_lm is not None:
        rescoring = DecodingConfig.from_dict(bundle.decoding).rescoring
        report_margins(ranking_lists(found, ("lexicon",)), dev, rescoring)
    print(f"the weights of the row marked {CHOSEN} go into decoding.rescoring of {arguments.bundle / CONFIG_FILE}")


if __name__ == "__main__":
    main()
