"""Phrase hints in the searches that streams get: honoured in each of them, and no other stream's business."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from asr_service.decoding.open_vocabulary import spelled_words
from asr_service.engine.interface import StreamOptions
from asr_service.engine.runner import Encoded, ModelRunner
from asr_service.engine.search_space import SearchSpace
from asr_service.types import Hypothesis, Mode, PhraseHint
from tests.engine.conftest import WORDS

BOOST = 18.0


@pytest.fixture(scope="module")
def encoded(tiny_bundle) -> Encoded:
    runner = ModelRunner(tiny_bundle, streams=1, threads=1)
    return runner.encode_whole(torch.randn(320, 80, generator=torch.Generator().manual_seed(1)).numpy())


@pytest.fixture(scope="module")
def spaces(tiny_bundle) -> dict[str, SearchSpace]:
    # A random model spells anything: words outside the lexicon are out of the question here.
    rescoring = {**tiny_bundle.decoding["rescoring"], "unknown": -1e4}
    closed = dataclasses.replace(tiny_bundle, decoding={**tiny_bundle.decoding, "rescoring": rescoring})
    return {
        "lexicon": SearchSpace(closed),
        "pieces": SearchSpace(dataclasses.replace(tiny_bundle, lm_path=None)),
        "pieces without a lexicon": SearchSpace(dataclasses.replace(tiny_bundle, lm_path=None, lexicon=None)),
    }


def answer(space: SearchSpace, encoded: Encoded, mode: Mode, hints: tuple[PhraseHint, ...] = ()) -> Hypothesis:
    search = space.new_search(StreamOptions(mode, max_alternatives=5, phrase_hints=hints))
    search.step(encoded)
    return search.final(offset_s=0.0)[0]


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("kind", ["lexicon", "pieces", "pieces without a lexicon"])
def test_expected_words_are_found_more_and_a_neighbour_hears_what_it_would(spaces, encoded, kind, mode) -> None:
    space = spaces[kind]
    alone = answer(space, encoded, mode)
    unheard = sorted(WORDS.keys() - set(alone.text.split()))[:12]
    hints = tuple(PhraseHint(word, BOOST) for word in unheard)
    neighbour = space.new_search(StreamOptions(mode, max_alternatives=5))
    hinted = answer(space, encoded, mode, hints)
    assert set(hinted.text.split()) & set(unheard)
    neighbour.step(encoded)
    assert neighbour.final(offset_s=0.0)[0] == alone
    assert answer(space, encoded, mode) == alone
    assert answer(space, encoded, mode, hints) == hinted


def test_a_word_that_the_lexicon_lacks_is_heard_where_it_is_nearly_spelled(tiny_bundle, spaces, encoded) -> None:
    mode = Mode.ACCURATE
    spelled = [word.text for word in spelled_words(tiny_bundle.pieces, encoded.pieces)]
    near = spelled[0] + spelled[0][-1]
    assert near not in WORDS and near not in spelled
    assert near not in answer(spaces["lexicon"], encoded, mode).text.split()
    # Its random decoder and n-gram think little of it: what is shown is that the hypothesis is there to be ranked.
    assert near in answer(spaces["lexicon"], encoded, mode, (PhraseHint(near, 500.0),)).text.split()


@pytest.mark.parametrize("mode", list(Mode))
def test_hints_that_are_worth_nothing_change_nothing(spaces, encoded, mode) -> None:
    assert answer(spaces["lexicon"], encoded, mode, (PhraseHint("tick", 0.0),)) == answer(
        spaces["lexicon"], encoded, mode
    )
