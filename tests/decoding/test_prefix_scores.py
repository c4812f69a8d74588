"""What a model says of hypotheses that share prefixes: what it says of each alone, at a bounded price a part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_service.decoding import prefix_scores
from asr_service.decoding.prefix_scores import (
    DECODER_CONTEXT,
    PART_NODES,
    PrefixScores,
    attention_scores,
    internal_lm_scores,
)
from asr_service.model.config import TransformerConfig
from asr_service.model.decoder import Decoder
from asr_service.model.neural_lm import NeuralLM, NeuralLMConfig
from asr_service.parts import at_once
from asr_service.tokenizer import WordPieces
from training.likelihoods import log_likelihoods

MEMORY = torch.randn(7, 16, generator=torch.Generator().manual_seed(3))
SEQUENCES = st.lists(st.lists(st.integers(3, 5), max_size=7), min_size=1, max_size=6)


@dataclass
class Scored:
    """A model, its teacher forcing over (1, U) tokens to (1, U, V) logits, and what begins with its scores."""

    model: torch.nn.Module
    forced: Callable[[torch.Tensor], torch.Tensor]
    begin: Callable[[], PrefixScores]


def decoder(norm: str) -> Scored:
    config = TransformerConfig(
        d_model=16, n_heads=2, ffn_dim=32, decoder_layers=2, vocab_size=12, norm=norm, downsample_after=None
    )
    model = Decoder(config).eval()
    memory = MEMORY.unsqueeze(0)
    return Scored(
        model, lambda tokens: model(tokens, memory, None), lambda: PrefixScores(model, model.start_tree(memory))
    )


def neural_lm() -> Scored:
    model = NeuralLM(NeuralLMConfig(12, 16, 2, 32, 2)).eval().requires_grad_(False)
    return Scored(model, model, lambda: PrefixScores(model, model.start_tree()))


@pytest.fixture(scope="module", params=["pre", "post", "neural language model"])
def scored(request: pytest.FixtureRequest) -> Scored:
    torch.manual_seed(0)
    return neural_lm() if request.param == "neural language model" else decoder(request.param)


def alone(scored: Scored, sequence: Sequence[int]) -> torch.Tensor:
    """Teacher forcing over one sequence."""
    with torch.inference_mode():
        logits = scored.forced(torch.tensor([[WordPieces.bos_id, *sequence]]))[0]
    targets = torch.tensor([*sequence, WordPieces.eos_id])
    return torch.log_softmax(logits, dim=-1)[torch.arange(len(targets)), targets]


@settings(max_examples=30, deadline=None)
@given(SEQUENCES, SEQUENCES, st.integers(1, 9))
def test_hypotheses_that_come_together_or_later_in_parts_of_any_size_score_as_each_alone(
    scored: Scored, first: list[list[int]], later: list[list[int]], part: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_scores, "PART_NODES", part)
        scores = scored.begin()
        at_once(scores.add(first))
        at_once(scores.add(later))
    everything = [*first, *later]
    for sequence in everything:
        torch.testing.assert_close(scores.of(sequence), alone(scored, sequence), rtol=0, atol=1e-5)
    expected = torch.stack([alone(scored, sequence).sum() for sequence in everything])
    torch.testing.assert_close(scores.totals(everything), expected, rtol=0, atol=1e-4)


def test_the_decoder_is_asked_once_for_what_follows_the_same_tokens() -> None:
    torch.manual_seed(0)
    scored = decoder("pre")
    scores = attention_scores(cast(Decoder, scored.model), MEMORY)
    same = [*range(3, 3 + DECODER_CONTEXT), 3]
    first, other = [4, 5, *same], [6, *same]
    at_once(scores.add([first, other]))
    whole, taken_over = alone(scored, first), scores.of(other)
    torch.testing.assert_close(scores.of(first), whole, rtol=0, atol=1e-5)
    until = 1 + DECODER_CONTEXT
    torch.testing.assert_close(taken_over[:until], alone(scored, other)[:until], rtol=0, atol=1e-5)
    torch.testing.assert_close(taken_over[until:], whole[until + 1 :], rtol=0, atol=1e-5)


def test_no_part_computes_more_prefixes_than_promised_and_none_is_computed_twice(
    scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = scored.model.grow_tree
    monkeypatch.setattr(scored.model, "grow_tree", lambda *nodes: (sizes.append(len(nodes[0])), original(*nodes))[1])
    generator = torch.Generator().manual_seed(5)
    sequences = torch.randint(3, 12, (40, 20), generator=generator).tolist()
    scores = scored.begin()
    parts = 0
    for _ in scores.add(sequences):
        parts += 1
        assert len(sizes) == parts, "one stretch of the tree between two yields"
    prefixes = {tuple(row[:length]) for row in sequences for length in range(21)}
    assert sum(sizes) == len(prefixes) and max(sizes) == PART_NODES
    assert parts == -(-len(prefixes) // PART_NODES)
    assert not list(scores.add(sequences)), "all of it is known"
    assert len(list(scores.add([[*sequences[0], 3]]))) == 1 and sizes[-1] == 1


def test_the_decoder_says_of_many_together_what_its_steps_say_of_each_alone() -> None:
    torch.manual_seed(0)
    config = TransformerConfig(d_model=16, n_heads=2, ffn_dim=32, decoder_layers=2, vocab_size=12)
    decoder = Decoder(config).eval()
    memory = torch.randn(7, 16)
    sequences = [(3, 4, 5), (6,), (), (7, 7)]
    with torch.no_grad():
        together = log_likelihoods(attention_scores(decoder, memory), sequences)
        for row, tokens in enumerate(sequences):
            cache = decoder.start(memory.unsqueeze(0), capacity=8)
            total, last = 0.0, WordPieces.bos_id
            for token in (*tokens, WordPieces.eos_id):
                total += decoder.step(torch.tensor([last]), cache)[0, token].item()
                last = token
            assert together[row].item() == pytest.approx(total, abs=1e-4)


def test_the_internal_language_model_is_the_decoder_over_silence_of_any_length() -> None:
    torch.manual_seed(0)
    decoder = Decoder(TransformerConfig(d_model=16, n_heads=2, ffn_dim=32, decoder_layers=2, vocab_size=12)).eval()
    torch.nn.init.normal_(decoder.blocks[0].cross_attention.kv_proj.bias)  # what it says of nothing is not nothing
    sequences = [(3, 4, 5), (6,), ()]
    with torch.no_grad():
        found = log_likelihoods(internal_lm_scores(decoder), sequences)
        for frames in (1, 9):
            for row, tokens in enumerate(sequences):
                fed = torch.tensor([[WordPieces.bos_id, *tokens]])
                mask = torch.ones(1, frames, dtype=torch.bool)
                said = torch.log_softmax(decoder(fed, torch.zeros(1, frames, 16), mask), dim=-1)[0]
                wanted = torch.tensor([*tokens, WordPieces.eos_id])
                total = said.gather(1, wanted.unsqueeze(1)).sum()
                assert found[row].item() == pytest.approx(total.item(), abs=1e-4)
