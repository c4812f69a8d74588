"""Confidences of a search: with the bundle's weights, and without them as the n-best list has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from asr_service.decoding.confidence import FEATURES, ConfidenceWeights, posteriors, word_confidences
from asr_service.decoding.hypothesis import TimedWord
from asr_service.decoding.prefix_scores import attention_scores
from asr_service.engine.interface import StreamOptions
from asr_service.engine.runner import Encoded, ModelRunner
from asr_service.engine.search_space import SearchSpace
from asr_service.model.bundle import Bundle
from asr_service.parts import Parts
from asr_service.types import Hypothesis, Mode

WEIGHTS = dataclasses.asdict(ConfidenceWeights(intercept=1.5, posterior=0.3, entropy=-0.4, language_model=0.1))


@pytest.fixture(scope="module")
def encoded(tiny_bundle: Bundle) -> Encoded:
    features = torch.randn(320, 80, generator=torch.Generator().manual_seed(1)).numpy()
    return ModelRunner(tiny_bundle, streams=1, threads=1).encode_whole(features)


def heard(bundle: Bundle, encoded: Encoded, mode: Mode, **decoding: object) -> tuple[Hypothesis, ...]:
    space = SearchSpace(dataclasses.replace(bundle, decoding={**bundle.decoding, **decoding}))
    search = space.new_search(StreamOptions(mode, max_alternatives=4))
    search.step(encoded)
    return search.final(offset_s=0.0)


def sure(hypotheses: tuple[Hypothesis, ...]) -> list[tuple[float, ...]]:
    return [tuple(word.confidence for word in hypothesis.words) for hypothesis in hypotheses]


@pytest.mark.parametrize("mode", list(Mode))
def test_a_bundle_without_weights_answers_with_the_posteriors_of_its_n_best_list(tiny_bundle, encoded, mode) -> None:
    decoding = {name: value for name, value in tiny_bundle.decoding.items() if name != "confidence"}
    bundle = dataclasses.replace(tiny_bundle, decoding=decoding)
    found = heard(bundle, encoded, mode)
    search = SearchSpace(bundle).new_search(StreamOptions(mode))
    search.step(encoded)
    entries = search.n_best()
    lists, weights = [words for words, _ in entries], posteriors([score for _, score in entries], 0.3).tolist()
    assert len(found) == 4
    assert sure(found) == [word_confidences(words, lists, weights) for words in lists[:4]]
    assert [one.confidence for one in found] == [float(np.mean(row)) for row in sure(found)]


@pytest.mark.parametrize("mode", list(Mode))
def test_nothing_at_all_is_a_hypothesis_that_may_win_and_makes_others_less_sure(
    tiny_bundle, encoded, mode, monkeypatch
) -> None:
    search = SearchSpace(tiny_bundle).new_search(StreamOptions(mode, max_alternatives=4))
    search.step(encoded)
    (best, *_), (score, *_) = zip(*search.n_best(), strict=True)

    def finals(*ranked: tuple[Sequence[TimedWord], float]) -> tuple[Hypothesis, ...]:
        def parts() -> Parts[list[tuple[Sequence[TimedWord], float]]]:
            yield
            return list(ranked)

        monkeypatch.setattr(search, "_ranked", parts)
        return search.final(offset_s=0.0)

    assert finals(((), score), (best, score - 1)) == finals(((), score)) == ()
    (alone,), (doubted,) = finals((best, score)), finals((best, score), ((), score - 1))
    assert doubted.text == alone.text
    assert all(a.confidence > d.confidence for a, d in zip(alone.words, doubted.words, strict=True))


@pytest.mark.parametrize("mode", list(Mode))
def test_weights_of_a_mode_are_used_in_that_mode_alone(tiny_bundle, encoded, mode) -> None:
    plain = heard(tiny_bundle, encoded, mode)
    other = next(one for one in Mode if one is not mode)
    assert heard(tiny_bundle, encoded, mode, confidence={other.value: WEIGHTS}) == plain
    weighted = heard(tiny_bundle, encoded, mode, confidence={mode.value: WEIGHTS})
    assert [one.text for one in weighted] == [one.text for one in plain]
    assert sure(weighted) != sure(plain)


def test_with_weights_every_alternatives_confidence_is_the_mean_of_its_words_in_the_unit_interval(
    tiny_bundle, encoded
) -> None:
    found = heard(tiny_bundle, encoded, Mode.ACCURATE, confidence={"accurate": WEIGHTS})
    assert len(found) == 4
    for hypothesis, row in zip(found, sure(found), strict=True):
        assert all(0.0 < confidence < 1.0 for confidence in row)
        assert hypothesis.confidence == pytest.approx(np.mean(row))


def test_confidences_follow_from_the_features_of_each_hypothesis(tiny_bundle, encoded) -> None:
    found = heard(tiny_bundle, encoded, Mode.ACCURATE, confidence={"accurate": WEIGHTS})
    space = SearchSpace(tiny_bundle)
    search = space.new_search(StreamOptions(Mode.ACCURATE))
    search.step(encoded)
    lists, scores = zip(*search.n_best(), strict=True)
    attention = attention_scores(tiny_bundle.model.decoder, encoded.hidden)
    for words, row in zip(lists, sure(found), strict=False):
        features = space.word_features(
            words, lists, scores, phones=encoded.phones, pieces=encoded.pieces, attention=attention
        )
        sums = 1.5 + features @ [WEIGHTS[name] for name in FEATURES]
        assert row == pytest.approx(1 / (1 + np.exp(-sums)))


def test_the_posteriors_that_weights_read_are_as_flat_as_those_without(tiny_bundle, encoded) -> None:
    weights = dataclasses.asdict(ConfidenceWeights(posterior=1.0))
    settings = [{"confidence_scale": 0.01, "confidence": {"accurate": each}} for each in (weights, None)]
    weighted, plain = (sure(heard(tiny_bundle, encoded, Mode.ACCURATE, **each)) for each in settings)
    for row, posterior in zip(weighted, plain, strict=True):
        assert row == pytest.approx(np.clip(posterior, 0.001, 0.999), abs=1e-6)
