"""Words that the lexicon lacks, put where the word-piece CTC spells them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from asr_service.decoding import prefix_scores
from asr_service.decoding.language_model import WordLanguageModel
from asr_service.decoding.prefix_scores import attention_scores, internal_lm_scores
from asr_service.decoding.rescoring import NO_ALIGNMENT, ctc_log_likelihoods
from asr_service.engine.frames import FRAME_S, PHONE_FRAME_S
from asr_service.engine.interface import StreamOptions
from asr_service.engine.lexicon_search import LexiconSearch
from asr_service.engine.runner import Encoded, ModelRunner
from asr_service.engine.search_space import SearchSpace
from asr_service.lexicon import phone_ids
from asr_service.model.bundle import Bundle
from asr_service.model.transformer import Transformer
from asr_service.types import Mode
from tests.engine.conftest import WORDS
from training.likelihoods import log_likelihoods


def heard(frames: int, size: int, tokens: dict[int, list[int]]) -> np.ndarray:
    """(T, V) log-probabilities of a path: from these frames on, these tokens with blanks in between."""
    labels = np.zeros(frames, dtype=int)
    for frame, ids in tokens.items():
        labels[frame : frame + 2 * len(ids) : 2] = ids
    log_probs = np.full((frames, size), -12.0, dtype=np.float32)
    log_probs[np.arange(frames), labels] = -0.01
    return log_probs


@pytest.mark.parametrize(("downsample_after", "ratio"), [(2, 2), (None, 1)])
def test_a_spelled_word_takes_the_place_of_what_was_heard_there_whether_or_not_the_encoder_merges_frames(
    tiny_bundle, downsample_after: int | None, ratio: int
) -> None:
    config = dataclasses.replace(tiny_bundle.model.config, downsample_after=downsample_after)
    rescoring = {**tiny_bundle.decoding["rescoring"], "unknown": 0.0, "attention": 0.0, "pieces": 5.0}
    decoding = {**tiny_bundle.decoding, "rescoring": rescoring}
    model = Transformer(config).eval().requires_grad_(False)
    bundle = dataclasses.replace(tiny_bundle, model=model, decoding=decoding)
    search = SearchSpace(bundle).new_search(StreamOptions(Mode.ACCURATE))
    assert isinstance(search, LexiconSearch)
    said = {0: "tick", 20: "baa", 40: "tick"}  # by frames of the phone CTC
    spelled = {0: "tick", 20: "boa", 40: "tick"}
    phones = heard(60, 40, {frame: phone_ids(WORDS[word][0]) for frame, word in said.items()})
    encode = bundle.pieces.encode
    pieces = heard(60 // ratio, bundle.pieces.vocab_size, {at // ratio: encode(word) for at, word in spelled.items()})
    search.step(Encoded(phones, pieces, torch.zeros(len(pieces), config.d_model)))
    assert search.final(offset_s=0.0)[0].text == "tick boa tick"


@pytest.fixture(scope="module")
def encoded(tiny_bundle) -> Encoded:
    features = torch.randn(96, 80, generator=torch.Generator().manual_seed(4)).numpy()
    return ModelRunner(tiny_bundle, streams=1, threads=1, precision="fp32").encode_whole(features)


def known(bundle: Bundle, encoded: Encoded, mode: Mode, **decoding: object) -> dict[tuple[str, ...], float]:
    """The ranked hypotheses of the lexicon's words, best first."""
    space = SearchSpace(dataclasses.replace(bundle, decoding={**bundle.decoding, **decoding}))
    search = space.new_search(StreamOptions(mode))
    search.step(encoded)
    found = {tuple(word.text for word in words): score for words, score in search.n_best()}
    return {words: score for words, score in found.items() if WORDS.keys() >= set(words)}


def test_each_hypothesis_is_worth_the_weighted_sum_of_what_every_part_says(
    tiny_bundle, encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_scores, "DECODER_CONTEXT", 1000)
    weights = {"phones": 0.7, "pieces": 0.3, "attention": 0.9, "language_model": 1.1, "word": -0.4, "unknown": -1e6}
    weights |= {"internal_lm": -0.6, "unigram": -0.8}
    found = known(tiny_bundle, encoded, Mode.ACCURATE, rescoring=weights)
    n_gram = WordLanguageModel(tiny_bundle.lm_path, sorted(WORDS))
    tokens = [tiny_bundle.pieces.encode(" ".join(words)) for words in found]
    phones = [phone_ids(phone for word in words for phone in WORDS[word][0]) for words in found]
    said = (
        0.7 * ctc_log_likelihoods(torch.from_numpy(encoded.phones), phones)
        + 0.3 * ctc_log_likelihoods(torch.from_numpy(encoded.pieces), tokens).clamp(min=NO_ALIGNMENT)
        + 0.9 * log_likelihoods(attention_scores(tiny_bundle.model.decoder, encoded.hidden), tokens)
        + 1.1 * torch.tensor([n_gram.sentence(words) for words in found])
        - 0.4 * torch.tensor([float(len(words)) for words in found])
        - 0.6 * log_likelihoods(internal_lm_scores(tiny_bundle.model.decoder), tokens)
        - 0.8 * torch.tensor([n_gram.without_context(words) for words in found])
    )
    assert len({len(words) for words in found}) > 1
    assert list(found.values()) == pytest.approx(said.tolist(), abs=1e-2)


def test_words_are_placed_in_frames_of_the_phone_ctc(tiny_bundle) -> None:
    assert tiny_bundle.model.config.subsampling * FRAME_S == PHONE_FRAME_S


def test_each_mode_ranks_as_many_hypotheses_as_it_is_told(tiny_bundle, encoded) -> None:
    told = {"n_best": 2, "streaming_n_best": 5}
    assert [len(known(tiny_bundle, encoded, mode, **told)) for mode in (Mode.ACCURATE, Mode.STREAMING)] == [2, 5]
