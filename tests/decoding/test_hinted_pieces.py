"""Phrase hints in the beams over word pieces."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr_service.decoding.ctc_prefix_beam import CtcPrefixBeam, PrefixBeamOptions
from asr_service.decoding.hinted_pieces import HintedPieces
from asr_service.decoding.joint_beam import JointBeamOptions, joint_beam_search
from asr_service.decoding.phrase_hints import PhraseHints
from asr_service.model.config import TransformerConfig
from asr_service.model.decoder import Decoder
from asr_service.parts import at_once
from asr_service.tokenizer import WORD_START, WordPieces
from asr_service.types import PhraseHint

PIECES = ("<blank>", "<s>", "</s>", "▁", "▁a", "▁ab", "b", "c")
HINTS = PhraseHints(
    [PhraseHint("a b", 3.0), PhraseHint("b a ab", 5.0), PhraseHint("abc", 2.0), PhraseHint("ab ab", 1.0)]
)


def words_of(token_ids) -> list[str]:
    return "".join(PIECES[token] for token in token_ids).replace(WORD_START, " ").split()


@given(st.lists(st.integers(3, len(PIECES) - 1), max_size=14))
def test_in_the_end_a_spelling_has_what_its_words_are_worth(token_ids: list[int]) -> None:
    pieces = HintedPieces(HINTS, PIECES)
    place = pieces.start()
    for token_id in token_ids:
        place = pieces.extended(place, token_id)
    assert pieces.ended(place) == pytest.approx(HINTS.score(words_of(token_ids)))


def test_the_boost_comes_letter_by_letter_and_goes_where_no_phrase_comes_of_it() -> None:
    pieces = HintedPieces(PhraseHints([PhraseHint("abc", 6.0)]), PIECES)
    scores, place = [], pieces.start()
    for piece in ("▁a", "b", "c", "▁ab", "b", "c"):
        place = pieces.extended(place, PIECES.index(piece))
        scores.append(place.score)
    assert scores == pytest.approx([2.0, 4.0, 6.0, 6.0 + 4.0, 6.0, 6.0])
    assert pieces.ended(place) == 6.0


@pytest.mark.parametrize("seed", range(4))
def test_the_prefix_beam_adds_the_boosts_to_what_it_finds_without(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 1.5, (5, len(PIECES)))
    logits[:, 1:3] = -1e4
    log_probs = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)
    options = PrefixBeamOptions(beam_size=20_000, beam_size_token=10, min_log_prob=-1e9, lm_weight=0.0, word_score=0.0)
    plain = CtcPrefixBeam(PIECES, options)
    hinted = CtcPrefixBeam(PIECES, options, hints=HintedPieces(HINTS, PIECES))
    for beam in (plain, hinted):
        beam.step(log_probs)
    before = {hypothesis.texts: hypothesis.score for hypothesis in plain.finish(10_000)}
    after = {hypothesis.texts: hypothesis.score for hypothesis in hinted.finish(10_000)}
    assert after == pytest.approx({words: score + HINTS.score(words) for words, score in before.items()})
    assert max(after, key=after.__getitem__) == hinted.finish(1)[0].texts


def test_the_joint_beam_adds_the_boosts_to_what_it_finds_without() -> None:
    torch.manual_seed(3)
    size = len(PIECES)
    decoder = Decoder(TransformerConfig(d_model=16, n_heads=2, ffn_dim=32, decoder_layers=1, vocab_size=size)).eval()
    memory = torch.randn(3, 16, generator=torch.Generator().manual_seed(5))
    ctc = torch.log_softmax(torch.randn(3, size, generator=torch.Generator().manual_seed(6)), dim=-1)
    options = JointBeamOptions(beam_size=400, candidates=size - 3)
    found = []
    for hints in (None, HintedPieces(HINTS, PIECES)):
        parts = joint_beam_search(
            decoder, memory, ctc, bos_id=WordPieces.bos_id, eos_id=WordPieces.eos_id, options=options, hints=hints
        )
        found.append({hypothesis.token_ids: hypothesis.score for hypothesis in at_once(parts)})
    plain, hinted = found
    everything = {ids for n in range(4) for ids in itertools.product(range(3, size), repeat=n)}
    assert plain.keys() >= {ids for ids in everything if len(ids) <= 2}
    assert any(HINTS.score(words_of(ids)) for ids in plain)
    for ids in plain.keys() & hinted.keys():
        assert hinted[ids] == pytest.approx(plain[ids] + HINTS.score(words_of(ids)), abs=1e-4)


@pytest.mark.parametrize("turn", [1, -1])
def test_of_phrases_that_begin_alike_the_one_that_is_worth_most_a_letter_counts(turn: int) -> None:
    pieces = HintedPieces(PhraseHints([PhraseHint("abc", 6.0), PhraseHint("ab", 1.0)][::turn]), PIECES)
    assert pieces.extended(pieces.start(), PIECES.index("▁a")).score == pytest.approx(2.0)


class Speller:
    """A decoder that takes little for the first piece of a word, and is sure of what comes then."""

    def __init__(self, *token_ids: int) -> None:
        self._following = dict(itertools.pairwise((WordPieces.bos_id, *token_ids, WordPieces.eos_id)))

    def start(self, memory: torch.Tensor, *, capacity: int) -> Speller:
        return self

    def reorder(self, index: torch.Tensor) -> None:
        pass

    def step(self, token_ids: torch.Tensor, cache: Speller) -> torch.Tensor:
        log_probs = torch.full((len(token_ids), len(PIECES)), -20.0)
        for row, token_id in zip(log_probs, token_ids.tolist(), strict=True):
            following = self._following.get(token_id, WordPieces.eos_id)
            row[following] = -0.01
            if token_id == WordPieces.bos_id:
                row[following], row[WordPieces.eos_id] = -4.5, -1.0
        return log_probs


def test_the_joint_beam_does_not_stop_before_a_phrase_has_its_boost() -> None:
    ids = tuple(PIECES.index(piece) for piece in ("▁a", "b", "c"))
    parts = joint_beam_search(
        Speller(*ids),  # type: ignore[arg-type]
        torch.zeros(6, 16),
        torch.log_softmax(torch.zeros(6, len(PIECES)), dim=-1),
        bos_id=WordPieces.bos_id,
        eos_id=WordPieces.eos_id,
        options=JointBeamOptions(beam_size=1, ctc_weight=0.0),
        hints=HintedPieces(PhraseHints([PhraseHint("abc", 9.0)]), PIECES),
    )
    assert [hypothesis.token_ids for hypothesis in at_once(parts)] == [ids]
