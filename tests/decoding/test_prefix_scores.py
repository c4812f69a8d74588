"""What the decoder says of hypotheses that share prefixes: what it says of each alone, at a bounded price a part."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_service.decoding import prefix_scores
from asr_service.decoding.prefix_scores import PART_NODES, attention_scores
from asr_service.model.config import TransformerConfig
from asr_service.model.decoder import Decoder
from asr_service.parts import at_once
from asr_service.tokenizer import WordPieces

MEMORY = torch.randn(7, 16, generator=torch.Generator().manual_seed(3))
SEQUENCES = st.lists(st.lists(st.integers(3, 5), max_size=7), min_size=1, max_size=6)


@pytest.fixture(scope="module", params=["pre", "post"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    torch.manual_seed(0)
    config = TransformerConfig(
        d_model=16, n_heads=2, ffn_dim=32, decoder_layers=2, vocab_size=12, norm=request.param, downsample_after=None
    )
    return Decoder(config).eval()


def alone(decoder: Decoder, sequence: Sequence[int]) -> torch.Tensor:
    """Teacher forcing over one sequence."""
    with torch.inference_mode():
        logits = decoder(torch.tensor([[WordPieces.bos_id, *sequence]]), MEMORY.unsqueeze(0), None)[0]
    targets = torch.tensor([*sequence, WordPieces.eos_id])
    return torch.log_softmax(logits, dim=-1)[torch.arange(len(targets)), targets]


@settings(max_examples=30, deadline=None)
@given(SEQUENCES, SEQUENCES, st.integers(1, 9))
def test_hypotheses_that_come_together_or_later_in_parts_of_any_size_score_as_each_alone(
    decoder: Decoder, first: list[list[int]], later: list[list[int]], part: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_scores, "PART_NODES", part)
        scores = attention_scores(decoder, MEMORY)
        at_once(scores.add(first))
        at_once(scores.add(later))
    everything = [*first, *later]
    for sequence in everything:
        torch.testing.assert_close(scores.of(sequence), alone(decoder, sequence), rtol=0, atol=1e-5)
    expected = torch.stack([alone(decoder, sequence).sum() for sequence in everything])
    torch.testing.assert_close(scores.totals(everything), expected, rtol=0, atol=1e-4)


def test_no_part_computes_more_prefixes_than_promised_and_none_is_computed_twice(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = decoder.grow_tree
    monkeypatch.setattr(decoder, "grow_tree", lambda *nodes: (sizes.append(len(nodes[0])), original(*nodes))[1])
    generator = torch.Generator().manual_seed(5)
    sequences = torch.randint(3, 12, (40, 20), generator=generator).tolist()
    scores = attention_scores(decoder, MEMORY)
    parts = 0
    for _ in scores.add(sequences):
        parts += 1
        assert len(sizes) == parts, "one stretch of the tree between two yields"
    prefixes = {tuple(row[:length]) for row in sequences for length in range(21)}
    assert sum(sizes) == len(prefixes) and max(sizes) == PART_NODES
    assert parts == -(-len(prefixes) // PART_NODES)
    assert not list(scores.add(sequences)), "all of it is known"
    assert len(list(scores.add([[*sequences[0], 3]]))) == 1 and sizes[-1] == 1
