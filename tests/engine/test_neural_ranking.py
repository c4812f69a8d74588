"""A bundle's neural language model takes part in the final ranking with its weight, and in nothing else."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_service.decoding.prefix_scores import PrefixScores
from asr_service.decoding.pronunciation_tree import PronunciationTree
from asr_service.engine.interface import StreamOptions
from asr_service.engine.runner import Encoded, ModelRunner
from asr_service.engine.search import UtteranceSearch
from asr_service.engine.search_space import SearchSpace
from asr_service.errors import BundleError
from asr_service.model.bundle import CONFIG_FILE, Bundle, load_bundle
from asr_service.model.neural_lm import (
    NEURAL_LM_FILE,
    NEURAL_LM_TOKENIZER_FILE,
    NeuralLM,
    NeuralLMConfig,
    save_neural_lm,
)
from asr_service.tokenizer import WordPieces
from asr_service.types import Mode
from tests.engine.conftest import WORDS
from tests.engine.listening import babble
from training.likelihoods import log_likelihoods

WEIGHT = 3.0


@pytest.fixture(scope="module")
def bundle(tiny_bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With a neural language model of other word pieces than the CTC's."""
    folder = Path(shutil.copytree(tiny_bundle_dir, tmp_path_factory.mktemp("neural") / "bundle"))
    torch.manual_seed(11)
    pieces = WordPieces.train(sorted(WORDS), 34)
    save_neural_lm(folder, NeuralLM(NeuralLMConfig(pieces.vocab_size, 16, 2, 32, 2)), pieces)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def encoded(bundle: Bundle) -> Encoded:
    runner = ModelRunner(bundle, streams=1, threads=1, precision="fp32")
    features, _, _ = runner.features(babble(3.0, 5), np.zeros(0, dtype=np.float32), last=True)
    return runner.encode_whole(features)


def searched(
    bundle: Bundle, encoded: Encoded, weight: float, mode: Mode, *, margin: float = 1e6, alternatives: int = 1
) -> UtteranceSearch:
    rescoring = bundle.decoding["rescoring"] | {"neural_lm": weight}
    decoding = bundle.decoding | {"rescoring": rescoring, "neural_margin": margin}
    weighted = dataclasses.replace(bundle, decoding=decoding)
    search = SearchSpace(weighted).new_search(StreamOptions(mode, max_alternatives=alternatives))
    search.step(encoded)
    return search


def test_each_hypothesis_is_worth_what_the_model_says_of_it_times_the_weight(bundle: Bundle, encoded: Encoded) -> None:
    assert bundle.neural_lm is not None
    model, pieces = bundle.neural_lm
    without, weighted = (
        {
            tuple(word.text for word in words): score
            for words, score in searched(bundle, encoded, weight, Mode.ACCURATE).n_best()
        }
        for weight in (0.0, WEIGHT)
    )
    assert without.keys() == weighted.keys()
    assert len(without) > 3
    said = log_likelihoods(
        PrefixScores(model, model.start_tree()), [pieces.encode(" ".join(words)) for words in without]
    )
    for words, text_score in zip(without, said.tolist(), strict=True):
        assert weighted[words] == pytest.approx(without[words] + WEIGHT * text_score, abs=1e-3)
    assert list(without) != list(weighted), "the ranking is another"


def known_words(search: UtteranceSearch, bundle: Bundle) -> dict[tuple[str, ...], float]:
    """The ranked hypotheses of words that the lexicon knows: spelled ones are ranked beside the best of these."""
    assert bundle.lexicon is not None
    found = {tuple(word.text for word in words): score for words, score in search.n_best()}
    return {words: score for words, score in found.items() if all(word in bundle.lexicon for word in words)}


def test_what_the_n_gram_leaves_far_behind_is_not_read(bundle: Bundle, encoded: Encoded) -> None:
    assert bundle.lm_path is not None and bundle.lexicon is not None
    n_gram = PronunciationTree(bundle.lexicon, bundle.lm_path).language_model
    every = known_words(searched(bundle, encoded, WEIGHT, Mode.ACCURATE), bundle)
    heard = known_words(searched(bundle, encoded, 0.0, Mode.ACCURATE), bundle)
    likely = {words: score + WEIGHT * n_gram.sentence(words) for words, score in heard.items()}
    in_order = sorted(likely, key=lambda words: -likely[words])
    margin = (likely[in_order[0]] - likely[in_order[1]]) + 0.01

    near = known_words(searched(bundle, encoded, WEIGHT, Mode.ACCURATE, margin=margin), bundle)
    assert near.keys() == set(in_order[:2])
    assert near == pytest.approx({words: every[words] for words in near}, abs=1e-3)


@pytest.mark.parametrize("mode", list(Mode))
def test_how_many_alternatives_are_told_changes_neither_the_words_nor_how_sure_they_are(
    bundle: Bundle, encoded: Encoded, mode: Mode
) -> None:
    alone, one, many = (
        searched(bundle, encoded, WEIGHT, mode, margin=0.0, alternatives=wanted).final(offset_s=0.0)
        for wanted in (1, 2, 8)
    )
    assert (len(alone), len(one), len(many)) == (1, 2, 8), "those that are far behind are told, too"
    assert alone == one[:1] == many[:1]
    assert one == many[:2]
    assert len({hypothesis.text for hypothesis in many}) == 8
    scores = [hypothesis.score for hypothesis in many]
    assert scores == sorted(scores, reverse=True)


def test_a_spelled_word_far_behind_is_not_read(bundle: Bundle, encoded: Encoded) -> None:
    lexicon = bundle.lexicon
    assert lexicon is not None

    def spelled(unknown: float) -> list[tuple[str, ...]]:
        rescoring = bundle.decoding["rescoring"] | {"unknown": unknown}
        weighted = dataclasses.replace(bundle, decoding=bundle.decoding | {"rescoring": rescoring})
        found = searched(weighted, encoded, WEIGHT, Mode.ACCURATE, margin=1000.0).n_best()
        texts = [tuple(word.text for word in words) for words, _ in found]
        return [words for words in texts if any(word not in lexicon for word in words)]

    assert spelled(-16.0)
    assert spelled(-2000.0) == []


def test_the_next_utterance_is_ranked_as_if_it_were_the_first(bundle: Bundle, encoded: Encoded) -> None:
    search = searched(bundle, encoded, WEIGHT, Mode.ACCURATE)
    first = search.n_best()
    search.reset()
    search.step(encoded)
    assert search.n_best() == first


def test_interims_are_those_of_a_bundle_without_one(bundle: Bundle, encoded: Encoded) -> None:
    alone = dataclasses.replace(bundle, neural_lm=None)
    with_it, without = (
        searched(each, encoded, WEIGHT, Mode.STREAMING).partial(offset_s=0.0) for each in (bundle, alone)
    )
    assert with_it == without


def test_word_pieces_that_cannot_spell_what_the_model_can_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.directory, tmp_path / "bundle"))
    pieces = WordPieces.train(["é baa"] * 3 + sorted(WORDS) * 3, bundle.pieces.vocab_size)
    pieces.save(folder / "tokenizer.json")
    with pytest.raises(BundleError, match=NEURAL_LM_TOKENIZER_FILE):
        load_bundle(folder)


def test_a_weight_for_a_model_that_is_not_there_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.directory, tmp_path / "bundle"))
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["decoding"]["rescoring"]["neural_lm"] = WEIGHT
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    assert load_bundle(folder).neural_lm is not None
    (folder / NEURAL_LM_FILE).unlink()
    with pytest.raises(BundleError, match=f"neural_lm is {WEIGHT}, but {NEURAL_LM_FILE} is missing"):
        load_bundle(folder)


def test_each_mode_has_a_margin_of_its_own(bundle: Bundle, encoded: Encoded) -> None:
    for mode, other in ((Mode.ACCURATE, "streaming_neural_margin"), (Mode.STREAMING, "neural_margin")):
        name = {"neural_margin", "streaming_neural_margin"} - {other}
        counts = []
        for nothing in (other, *name):
            margins = {"neural_margin": 1e6, "streaming_neural_margin": 1e6} | {nothing: 0.0}
            rescoring = bundle.decoding["rescoring"] | {"neural_lm": WEIGHT}
            decoding = bundle.decoding | {"rescoring": rescoring} | margins
            search = SearchSpace(dataclasses.replace(bundle, decoding=decoding)).new_search(StreamOptions(mode))
            search.step(encoded)
            counts.append(len(known_words(search, bundle)))
        assert counts[0] > counts[1] == 1
