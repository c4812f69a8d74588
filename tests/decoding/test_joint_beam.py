from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from asr_service.decoding.joint_beam import JointBeamOptions, joint_beam_search, max_tokens
from asr_service.decoding.prefix_scores import attention_scores
from asr_service.decoding.rescoring import ctc_log_likelihoods
from asr_service.decoding.spelling import Spelling
from asr_service.model.config import TransformerConfig
from asr_service.model.decoder import Decoder
from asr_service.parts import at_once
from asr_service.tokenizer import WordPieces
from training.likelihoods import log_likelihoods

VOCABULARY = 6  # blank, begin, end and three pieces


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(3)
    return Decoder(TransformerConfig(d_model=16, n_heads=2, ffn_dim=32, decoder_layers=1, vocab_size=VOCABULARY)).eval()


def search(
    decoder: Decoder,
    memory: torch.Tensor,
    ctc: torch.Tensor,
    options: JointBeamOptions,
    spelling: Spelling | None = None,
    prefix: Sequence[int] = (),
    after_prefix: torch.Tensor | None = None,
) -> list:
    parts = joint_beam_search(
        decoder,
        memory,
        ctc,
        bos_id=WordPieces.bos_id,
        eos_id=WordPieces.eos_id,
        options=options,
        spelling=spelling,
        prefix=prefix,
        after_prefix=after_prefix,
    )
    return at_once(parts)


@pytest.mark.parametrize("unknown", [None, -0.7, -50.0])
@pytest.mark.parametrize("ctc_weight", [0.2, 0.5, 0.8])
def test_a_beam_that_keeps_everything_finds_the_best_of_all(
    decoder: Decoder, ctc_weight: float, unknown: float | None
) -> None:
    memory = torch.randn(4, 16, generator=torch.Generator().manual_seed(5))
    ctc = torch.log_softmax(torch.randn(4, VOCABULARY, generator=torch.Generator().manual_seed(6)), dim=-1)
    options = JointBeamOptions(beam_size=200, candidates=3, ctc_weight=ctc_weight, length_reward=0.3)
    longest = max_tokens(ctc, options)
    everything = [s for n in range(longest + 1) for s in itertools.product(range(3, VOCABULARY), repeat=n)]
    with torch.no_grad():
        attention = log_likelihoods(attention_scores(decoder, memory), everything)
        scores = (1 - ctc_weight) * attention + ctc_weight * ctc_log_likelihoods(ctc, everything)
    spelling = None
    if unknown is not None:
        pieces, words = ("", "", "", "▁a", "▁b", "c"), ("a", "bc")
        spelling = Spelling(words, pieces, unknown)
        texts = ["".join(pieces[token] for token in tokens).replace("▁", " ").split() for tokens in everything]
        scores += unknown * torch.tensor([sum(word not in words for word in text) for text in texts])
    scores += options.length_reward * torch.tensor([len(tokens) for tokens in everything])
    best = int(scores.argmax())
    found = search(decoder, memory, ctc, options, spelling)
    expected = dict(zip(everything, scores.tolist(), strict=True))
    possible = [h for h in found if expected[h.token_ids] > -1000.0]
    assert max(len(h.token_ids) for h in possible) > 2
    assert [h.score for h in possible] == pytest.approx([expected[h.token_ids] for h in possible], abs=1e-4)
    assert found[0].token_ids == everything[best]
    assert found[0].score == pytest.approx(scores[best].item(), abs=1e-4)


@pytest.mark.parametrize("may_follow", [None, (4,)])
def test_given_tokens_a_beam_that_keeps_everything_finds_the_best_of_all_that_start_with_them(
    decoder: Decoder, may_follow: tuple[int, ...] | None
) -> None:
    memory = torch.randn(4, 16, generator=torch.Generator().manual_seed(5))
    ctc = torch.log_softmax(torch.randn(4, VOCABULARY, generator=torch.Generator().manual_seed(6)), dim=-1)
    options, prefix = JointBeamOptions(beam_size=200, candidates=3), (5, 3)
    after = None if may_follow is None else torch.tensor([token in may_follow for token in range(VOCABULARY)])
    found = search(decoder, memory, ctc, options, prefix=prefix, after_prefix=after)
    nexts = may_follow or range(3, VOCABULARY)
    expected = {prefix, *((*prefix, one) for one in nexts)}
    expected |= {(*prefix, one, two) for one in nexts for two in range(3, VOCABULARY)}
    assert {h.token_ids for h in found} == expected
    everything = {h.token_ids: h.score for h in search(decoder, memory, ctc, options)}
    shared = [h for h in found if everything.get(h.token_ids, -1000.0) > -1000.0]
    assert len(shared) > 3
    assert [h.score for h in shared] == pytest.approx([everything[h.token_ids] for h in shared], abs=1e-4)
    assert prefix != max(everything, key=everything.__getitem__)[:2], "the best of all starts otherwise"


def test_hypotheses_come_best_first_without_repeats_and_the_same_each_time(decoder: Decoder) -> None:
    memory = torch.randn(12, 16, generator=torch.Generator().manual_seed(5))
    ctc = torch.log_softmax(torch.randn(12, VOCABULARY, generator=torch.Generator().manual_seed(6)), dim=-1)
    first, second = (search(decoder, memory, ctc, JointBeamOptions()) for _ in range(2))
    assert first == second
    assert [h.score for h in first] == sorted((h.score for h in first), reverse=True)
    assert len({h.token_ids for h in first}) == len(first) <= JointBeamOptions().beam_size


def test_no_hypothesis_has_a_token_that_no_text_has_where_there_are_fewer_others_than_candidates(
    decoder: Decoder,
) -> None:
    ctc = torch.log_softmax(torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(6)), dim=-1)
    found = search(decoder, torch.randn(1, 16, generator=torch.Generator().manual_seed(5)), ctc, JointBeamOptions())
    assert {h.token_ids for h in found} == {(), (3,), (4,), (5,)}


def test_length_is_bounded_by_the_ctc_whatever_the_decoder_wants(decoder: Decoder) -> None:
    ctc = torch.full((50, VOCABULARY), -20.0)
    ctc[:, 0] = 0.0  # the CTC heard nothing
    found = search(decoder, torch.randn(50, 16), ctc, JointBeamOptions(ctc_weight=0.0, length_reward=5.0))
    assert max(len(h.token_ids) for h in found) == 5, "for the reward makes up for what each token costs"
    ctc[:, 3] = 1.0  # it heard one token for long
    assert max_tokens(ctc[:3], JointBeamOptions()) == 3


def test_no_frames_give_the_empty_hypothesis(decoder: Decoder) -> None:
    found = search(decoder, torch.zeros(0, 16), torch.zeros(0, VOCABULARY), JointBeamOptions())
    assert [h.token_ids for h in found] == [()]
