"""Word confidences by weights: what each word's features are, and weights that are wrong are refused by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from asr_service.decoding.confidence import FEATURES, ConfidenceModels, ConfidenceWeights
from asr_service.decoding.config import DecodingConfig
from asr_service.decoding.hypothesis import TimedWord
from asr_service.decoding.language_model import WordLanguageModel
from asr_service.decoding.prefix_scores import AttentionScores, attention_scores
from asr_service.decoding.word_features import WordFeatures
from asr_service.errors import BundleError
from asr_service.model.config import TransformerConfig
from asr_service.model.decoder import Decoder
from asr_service.tokenizer import WordPieces
from tests.decoding.tiny import WORDS, arpa, random_log_probs
from training.likelihoods import log_likelihoods

WORDS_HEARD = (TimedWord("see", 0, 4), TimedWord("a", 4, 6), TimedWord("cat", 7, 14))
OTHERS = ((TimedWord("sea", 0, 4), *WORDS_HEARD[1:]), (WORDS_HEARD[0], TimedWord("cats", 5, 14)))


@pytest.fixture(scope="module")
def pieces() -> WordPieces:
    return WordPieces.train(sorted(WORDS) * 3, 36)


@pytest.fixture(scope="module")
def decoder(pieces: WordPieces) -> Decoder:
    torch.manual_seed(0)
    config = TransformerConfig(d_model=16, n_heads=2, ffn_dim=32, decoder_layers=2, vocab_size=pieces.vocab_size)
    return Decoder(config).eval()


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> WordLanguageModel:
    return WordLanguageModel(arpa(tmp_path_factory.mktemp("lm")), sorted(WORDS))


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(8, 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def utterance(pieces: WordPieces, decoder: Decoder, hidden: torch.Tensor) -> dict[str, np.ndarray | AttentionScores]:
    return {
        "phones": random_log_probs(16, 40, 1),
        "pieces": random_log_probs(24, pieces.vocab_size, 2),
        "attention": attention_scores(decoder, hidden),
    }


@pytest.fixture
def columns(pieces, language_model, utterance) -> dict[str, np.ndarray]:
    features = WordFeatures(pieces, language_model, posterior_scale=1.0)
    n_best = [WORDS_HEARD, *OTHERS]
    found = features(WORDS_HEARD, n_best, [math.log(0.5), math.log(0.3), math.log(0.2)], **utterance)
    assert found.shape == (3, len(FEATURES)) and np.isfinite(found).all()
    return dict(zip(FEATURES, found.T, strict=True))


def test_posteriors_are_log_odds_that_certainty_keeps_finite(columns) -> None:
    odds = [0.7 / 0.3, 0.8 / 0.2, 0.8 / 0.2]
    assert columns["posterior"] == pytest.approx(np.log(odds))


def test_the_posterior_of_a_word_that_all_hypotheses_have_is_finite(pieces, language_model, utterance) -> None:
    features = WordFeatures(pieces, language_model, posterior_scale=1.0)
    found = features(WORDS_HEARD, [WORDS_HEARD], [-3.0], **utterance)
    assert found[:, FEATURES.index("posterior")] == pytest.approx([math.log(999)] * 3)


def test_entropy_is_that_of_the_words_own_frames(columns, utterance) -> None:
    log_probs = utterance["phones"].astype(np.float64)
    for word, entropy in zip(WORDS_HEARD, columns["entropy"], strict=True):
        frames = log_probs[word.start_frame : word.end_frame]
        assert entropy == pytest.approx(np.mean([-sum(math.exp(p) * p for p in frame) for frame in frames]), rel=1e-5)


def test_letters_are_counted_as_a_logarithm(columns) -> None:
    assert columns["letters"] == pytest.approx(np.log([3, 1, 3]))


def test_the_decoders_features_are_its_log_probabilities_of_the_words_pieces(columns, decoder, pieces, hidden) -> None:
    tokens = [pieces.encode(word.text) for word in WORDS_HEARD]
    flat = [token for word in tokens for token in word]
    with torch.no_grad():
        cache = decoder.start(hidden.unsqueeze(0), capacity=len(flat) + 1)
        said = []
        for last, token in zip([pieces.bos_id, *flat], [*flat, pieces.eos_id], strict=True):
            said.append(decoder.step(torch.tensor([last]), cache)[0, token].item())
        total = log_likelihoods(attention_scores(decoder, hidden), [flat]).item()
    assert sum(said) == pytest.approx(total, abs=1e-4)
    ends = np.cumsum([len(word) for word in tokens])
    least = [min(said[end - len(word) : end]) for end, word in zip(ends, tokens, strict=True)]
    assert columns["attention"] == pytest.approx(least, abs=1e-4)
    assert columns["following"] == pytest.approx([said[end] for end in ends], abs=1e-4)
    assert columns["utterance"] == pytest.approx([np.mean(said[:-1])] * 3, abs=1e-4)


def test_the_language_models_features_add_up_to_the_sentence_without_its_end(columns, language_model) -> None:
    state = language_model.start()
    for word in WORDS_HEARD:
        state, _ = language_model.score(state, word.text)
    sentence = language_model.sentence([word.text for word in WORDS_HEARD])
    assert columns["language_model"].sum() == pytest.approx(sentence - language_model.end(state))


def test_a_word_whose_pieces_are_heard_scores_better_than_one_whose_are_not(pieces, language_model, utterance) -> None:
    labels = [label for word in ("see", "a", "see") for token in pieces.encode(word) for label in (token, 0)]
    logits = np.full((len(labels), pieces.vocab_size), -8.0)
    logits[np.arange(len(labels)), labels] = 0.0
    heard = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)
    features = WordFeatures(pieces, language_model, posterior_scale=1.0)
    found = features(WORDS_HEARD, [WORDS_HEARD], [0.0], **(utterance | {"pieces": heard}))
    see, a, cat = found[:, FEATURES.index("pieces")]
    assert see == pytest.approx(a) and a > -0.2 and cat < a


def test_pieces_that_the_frames_cannot_hold_are_as_bad_as_can_be_yet_finite(pieces, language_model, utterance) -> None:
    features = WordFeatures(pieces, language_model, posterior_scale=1.0)
    found = features(WORDS_HEARD, [WORDS_HEARD], [0.0], **(utterance | {"pieces": utterance["pieces"][:1]}))
    assert found[:, FEATURES.index("pieces")].tolist() == [-10.0] * 3


def test_the_probability_is_the_logistic_function_of_the_weighted_sum() -> None:
    weights = ConfidenceWeights(intercept=0.5, posterior=2.0, language_model=-1.0)
    row = np.zeros(len(FEATURES))
    row[FEATURES.index("posterior")], row[FEATURES.index("language_model")] = 0.25, 3.0
    assert weights.probabilities(np.array([row])) == pytest.approx([1 / (1 + math.exp(2.0))])


@given(
    arrays(np.float64, (3, len(FEATURES)), elements=st.floats(-1e6, 1e6)),
    st.lists(st.floats(-1e6, 1e6), min_size=len(FEATURES), max_size=len(FEATURES)),
)
def test_confidences_lie_between_0_and_1_whatever_the_features(features, values) -> None:
    found = ConfidenceWeights(0.1, *values).probabilities(features)
    assert ((found >= 0.0) & (found <= 1.0)).all()


def test_weights_come_back_from_a_config_as_they_went_in() -> None:
    config = DecodingConfig(confidence=ConfidenceModels(streaming=ConfidenceWeights(intercept=1.0, entropy=-0.5)))
    assert DecodingConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("confidence", "named"),
    [
        ({"accurate": {"luck": 1.0}}, "accurate.luck is not known"),
        ({"accurate": {"posterior": "much"}}, "accurate.posterior is 'much', must be a finite number"),
        ({"streaming": {"intercept": math.inf}}, "streaming.intercept is inf"),
        ({"streaming": {"entropy": True}}, "streaming.entropy is True"),
        ({"accurate": 3}, "accurate is 3, must be a table"),
        ({"fast": {}}, "fast"),
        (None, "decoding.confidence"),
    ],
)
def test_wrong_weights_are_refused_by_name(confidence, named: str) -> None:
    with pytest.raises(BundleError) as error:
        DecodingConfig.from_dict({"confidence": confidence})
    assert "decoding.confidence" in str(error.value) and named in str(error.value)


def test_every_weight_is_a_feature() -> None:
    assert {"intercept", *FEATURES} == {item.name for item in dataclasses.fields(ConfidenceWeights)}


class Unheard:
    """A decoder's scores of what it would never say."""

    def add(self, sequences: list[list[int]]) -> Iterator[None]:
        yield

    def of(self, sequence: list[int]) -> torch.Tensor:
        return torch.full((len(sequence) + 1,), -80.0)


def test_what_is_next_to_impossible_counts_no_more_than_a_little_likely(pieces, language_model, utterance) -> None:
    features = WordFeatures(pieces, language_model, posterior_scale=1.0)
    silence = np.full((24, pieces.vocab_size), -80.0, dtype=np.float32)
    silence[:, 0] = 0.0
    unheard = utterance | {"pieces": silence, "attention": Unheard()}
    found = features(WORDS_HEARD, [WORDS_HEARD], [0.0], **unheard)
    for name in ("attention", "following", "utterance", "pieces"):
        assert found[:, FEATURES.index(name)].tolist() == [-10.0] * 3


def test_a_word_without_frames_of_its_own_has_the_entropy_of_the_frame_next_to_it(
    pieces, language_model, utterance
) -> None:
    words = (WORDS_HEARD[0], TimedWord("a", 6, 6), TimedWord("cat", 16, 17))  # there are 16
    features = WordFeatures(pieces, language_model, posterior_scale=1.0)
    found = features(words, [words], [0.0], **utterance)[:, FEATURES.index("entropy")]
    entropies = -(np.exp(utterance["phones"]) * utterance["phones"]).sum(axis=1)
    assert found[1:] == pytest.approx([entropies[6], entropies[15]], rel=1e-5)
