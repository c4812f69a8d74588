"""Word pieces without a language model: the lexicon's words go before others, and its phones have a say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from asr_service.decoding.hypothesis import TimedWord
from asr_service.decoding.rescoring import ctc_log_likelihoods
from asr_service.engine.interface import StreamOptions
from asr_service.engine.piece_search import PieceSearch
from asr_service.engine.runner import Encoded, ModelRunner
from asr_service.engine.search import UtteranceSearch
from asr_service.engine.search_space import SearchSpace
from asr_service.lexicon import phone_ids
from asr_service.model.transformer import Transformer
from asr_service.types import Mode
from tests.engine.conftest import WORDS


@pytest.fixture(scope="module")
def encoded(tiny_bundle) -> Encoded:
    runner = ModelRunner(tiny_bundle, streams=1, threads=1)
    features = torch.randn(320, 80, generator=torch.Generator().manual_seed(1)).numpy()
    return runner.encode_whole(features)


def texts(bundle, encoded: Encoded, **joint: float) -> list[str]:
    """The alternatives without the n-gram, best first."""
    decoding = {**bundle.decoding, "joint": {**bundle.decoding["joint"], **joint}}
    space = SearchSpace(dataclasses.replace(bundle, lm_path=None, decoding=decoding))
    search = space.new_search(StreamOptions(Mode.ACCURATE, max_alternatives=8))
    assert isinstance(search, PieceSearch)
    search.step(encoded)
    return [hypothesis.text for hypothesis in search.final(offset_s=0.0)]


def test_a_dear_price_keeps_to_the_lexicons_words_and_a_free_one_does_not(tiny_bundle, encoded) -> None:
    kept, free = (texts(tiny_bundle, encoded, unknown=price, phones=0.0) for price in (-1000.0, 0.0))
    assert all(word in WORDS for word in kept[0].split())
    assert any(word not in WORDS for text in free for word in text.split())


def test_where_phones_decide_alone_the_words_that_sound_most_like_it_come_first(tiny_bundle, encoded) -> None:
    found = texts(tiny_bundle, encoded, unknown=-1000.0, phones=1e6)
    assert len(found) > 2
    log_probs = torch.from_numpy(encoded.phones)
    phones = [phone_ids(phone for word in text.split() for phone in WORDS[word][0]) for text in found]
    fits = ctc_log_likelihoods(log_probs, phones).tolist()
    assert fits == sorted(fits, reverse=True)
    assert found != texts(tiny_bundle, encoded, unknown=-1000.0, phones=0.0)


def test_without_a_lexicon_every_spelling_is_free(tiny_bundle, encoded) -> None:
    bare = dataclasses.replace(tiny_bundle, lexicon=None)
    assert texts(bare, encoded, unknown=-1000.0) == texts(tiny_bundle, encoded, unknown=0.0, phones=0.0)


@pytest.mark.parametrize(("downsample_after", "frame_s"), [(2, 0.08), (None, 0.04)])
def test_words_lie_where_they_were_said_whether_or_not_the_encoder_merges_frames(
    tiny_bundle, downsample_after: int | None, frame_s: float
) -> None:
    config = dataclasses.replace(tiny_bundle.model.config, downsample_after=downsample_after)
    decoding = {**tiny_bundle.decoding, "joint": {"ctc_weight": 1.0, "candidates": 1000}}
    bundle = dataclasses.replace(
        tiny_bundle, model=Transformer(config).eval(), lexicon=None, lm_path=None, decoding=decoding
    )
    search = SearchSpace(bundle).new_search(StreamOptions(Mode.STREAMING))
    tokens = bundle.pieces.encode("tick")
    log_probs = np.full((50, bundle.pieces.vocab_size), -12.0, dtype=np.float32)
    log_probs[np.arange(50), [0] * 30 + tokens + [0] * (20 - len(tokens))] = -0.01
    search.step(Encoded(np.zeros((50, 0), dtype=np.float32), log_probs, torch.zeros(50, config.d_model)))
    (word,) = search.final(offset_s=1.0)[0].words
    assert word.text == "tick"
    assert (word.start_s, word.end_s) == pytest.approx((1.0 + 30 * frame_s, 1.0 + (30 + len(tokens)) * frame_s))


def test_a_text_that_nobody_can_pronounce_is_taken_to_fit_as_the_middle_one_of_the_others(tiny_bundle, encoded) -> None:
    search = SearchSpace(dataclasses.replace(tiny_bundle, lm_path=None)).new_search(StreamOptions(Mode.ACCURATE))
    assert isinstance(search, PieceSearch)
    search.step(encoded)
    tick, unknown, baa, b = search._pronounced(["tick", "tick zzz", "baa", "b"])
    assert unknown == sorted([tick, baa, b])[1] and len({tick, baa, b}) == 3
    assert search._pronounced(["zzz"]) == [0.0]


def test_a_word_that_may_still_grow_is_not_stable_though_all_hypotheses_have_it(tiny_bundle) -> None:
    decoding = {**tiny_bundle.decoding, "agreement": 0, "pieces": {"beam_size": 1}}
    bundle = dataclasses.replace(tiny_bundle, decoding=decoding, lexicon=None, lm_path=None)
    search = SearchSpace(bundle).new_search(StreamOptions(Mode.STREAMING))
    tokens, shown = bundle.pieces.encode("tick"), []
    for token in tokens:
        log_probs = np.full((1, bundle.pieces.vocab_size), -40.0, dtype=np.float32)
        log_probs[0, token] = 0.0
        search.step(Encoded(np.zeros((1, 0), dtype=np.float32), log_probs, torch.zeros(1, 32)))
        hypothesis, stable = search.partial(offset_s=0.0)
        shown.append((hypothesis.text, stable))
    assert len(shown) > 1
    assert shown == [(bundle.pieces.decode(tokens[:count]), 0) for count in range(1, len(tokens) + 1)]


def live(bundle, encoded: Encoded, agreement: int) -> UtteranceSearch:
    """A live search that has gone along all of it, eight frames of `encoder_out` at a time."""
    decoding = {**bundle.decoding, "agreement": agreement}
    space = SearchSpace(dataclasses.replace(bundle, lm_path=None, decoding=decoding))
    search = space.new_search(StreamOptions(Mode.STREAMING, max_alternatives=8))
    ratio = len(encoded.phones) // len(encoded.pieces)
    for begin in range(0, len(encoded.pieces), 8):
        end = begin + 8
        phones = encoded.phones[ratio * begin : ratio * end]
        search.step(Encoded(phones, encoded.pieces[begin:end], encoded.hidden[begin:end]))
    return search


def test_where_no_word_is_stable_a_live_final_is_that_of_the_whole_utterance(tiny_bundle, encoded) -> None:
    search = live(tiny_bundle, encoded, agreement=1000)
    assert search.partial(offset_s=0.0)[1] == 0
    assert [hypothesis.text for hypothesis in search.final(offset_s=0.0)] == texts(tiny_bundle, encoded)


def test_a_live_final_starts_with_the_stable_words_whatever_the_decoder_would_rather_have(tiny_bundle, encoded) -> None:
    search = live(tiny_bundle, encoded, agreement=2)
    hypothesis, count = search.partial(offset_s=0.0)
    stable = [word.text for word in hypothesis.words[:count]]
    assert stable and stable != texts(tiny_bundle, encoded)[0].split()[:count]
    found = [[word.text for word in hypothesis.words] for hypothesis in search.final(offset_s=0.0)]
    assert found and all(words[:count] == stable for words in found)


def test_what_comes_after_the_stable_words_is_in_the_final(tiny_bundle) -> None:
    tokens = tiny_bundle.pieces.encode("tick baa")
    said = [label for token in tokens for label in (token, 0)]
    log_probs = np.full((len(said), tiny_bundle.pieces.vocab_size), -40.0, dtype=np.float32)
    log_probs[np.arange(len(said)), said] = 0.0
    decoding = {**tiny_bundle.decoding, "joint": {"ctc_weight": 1.0, "candidates": 1000}, "pieces": {"beam_size": 1}}
    bundle = dataclasses.replace(tiny_bundle, decoding=decoding, lexicon=None)
    search = live(bundle, Encoded(np.zeros((len(said), 0)), log_probs, torch.zeros(len(said), 32)), agreement=0)
    hypothesis, count = search.partial(offset_s=0.0)
    assert (hypothesis.text, count) == ("tick baa", 1)
    assert search.final(offset_s=0.0)[0].text == "tick baa"


def test_a_final_is_made_token_by_token(tiny_bundle, encoded) -> None:
    """So that others on the engine's thread need not wait for all of it."""
    search = live(tiny_bundle, encoded, agreement=2)
    parts = sum(1 for _ in search.final_parts(offset_s=0.0))
    assert parts > len(tiny_bundle.pieces.encode(search.final(offset_s=0.0)[0].text))


def test_the_stable_words_remain_where_the_frames_hold_no_spelling_of_them(tiny_bundle) -> None:
    log_probs = np.full((1, tiny_bundle.pieces.vocab_size), -4.0, dtype=np.float32)
    search = live(tiny_bundle, Encoded(np.full((2, 40), -4.0, dtype=np.float32), log_probs, torch.zeros(1, 32)), 1000)
    search._stabiliser._stable = (TimedWord("tick", 0, 1), TimedWord("baa", 0, 1))
    assert [hypothesis.text for hypothesis in search.final(offset_s=0.0)] == ["tick baa"]
