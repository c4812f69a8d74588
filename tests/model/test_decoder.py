"""The decoder: causal, and the same step by step with a cache as in one pass."""

from __future__ import annotations

import pytest
import torch

from asr_service.model.layers import length_mask
from tests.model.conftest import tiny_model


def memory_of(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    memory = torch.randn(len(lengths), max(lengths), 16, generator=generator)
    return memory, length_mask(torch.tensor(lengths), max(lengths))


def tokens_of(rows: int, length: int) -> torch.Tensor:
    return torch.randint(3, 24, (rows, length), generator=torch.Generator().manual_seed(5))


def test_a_later_token_does_not_change_earlier_logits() -> None:
    decoder = tiny_model().decoder
    memory, mask = memory_of(6)
    tokens = tokens_of(1, 8)
    before = decoder(tokens, memory, mask)
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1 - 3) % 21 + 3
    after = decoder(changed, memory, mask)
    torch.testing.assert_close(after[:, :5], before[:, :5], rtol=0, atol=1e-6)
    assert (after[:, 5:] - before[:, 5:]).abs().amax(dim=-1).min() > 1e-4


def test_padding_of_the_encoder_does_not_change_the_logits() -> None:
    decoder = tiny_model().decoder
    memory, mask = memory_of(9, 6)
    tokens = tokens_of(2, 5)
    poisoned = memory.clone()
    poisoned[1, 6:] = 1e4
    torch.testing.assert_close(decoder(tokens, poisoned, mask), decoder(tokens, memory, mask), rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_cached_steps_give_the_log_probabilities_of_the_full_pass(norm: str) -> None:
    decoder = tiny_model(norm=norm).decoder
    memory, mask = memory_of(9, 6, 3)
    tokens = tokens_of(3, 12)
    full = torch.log_softmax(decoder(tokens, memory, mask), dim=-1)
    cache = decoder.start(memory, capacity=12, memory_mask=mask)
    for position in range(12):
        step = decoder.step(tokens[:, position], cache)
        torch.testing.assert_close(step, full[:, position], rtol=0, atol=1e-5)


def test_one_encoded_utterance_serves_a_whole_beam() -> None:
    decoder = tiny_model().decoder
    memory, _ = memory_of(7)
    tokens = tokens_of(4, 5)
    full = torch.log_softmax(decoder(tokens, memory.expand(4, -1, -1), None), dim=-1)
    cache = decoder.start(memory, capacity=8)
    cache.reorder(torch.zeros(4, dtype=torch.long))
    for position in range(5):
        torch.testing.assert_close(decoder.step(tokens[:, position], cache), full[:, position], rtol=0, atol=1e-5)


@pytest.mark.parametrize("order", [[2, 0, 0, 1], [1], [2, 2, 2]])
def test_after_a_reorder_each_row_continues_the_row_it_was_taken_from(order: list[int]) -> None:
    decoder = tiny_model().decoder
    memory, mask = memory_of(9, 6, 4)
    tokens = tokens_of(3, 4)
    cache = decoder.start(memory, capacity=6, memory_mask=mask)
    for position in range(4):
        decoder.step(tokens[:, position], cache)
    cache.reorder(torch.tensor(order))
    following = torch.arange(3, 3 + len(order))
    step = decoder.step(following, cache)
    prefix = torch.cat([tokens[order], following.unsqueeze(1)], dim=1)
    full = torch.log_softmax(decoder(prefix, memory[order], mask[order])[:, -1], dim=-1)
    torch.testing.assert_close(step, full, rtol=0, atol=1e-5)


def test_a_full_cache_says_how_many_tokens_it_holds() -> None:
    decoder = tiny_model().decoder
    cache = decoder.start(memory_of(3)[0], capacity=2)
    decoder.step(torch.tensor([1]), cache)
    decoder.step(torch.tensor([5]), cache)
    with pytest.raises(ValueError, match="holds 2 tokens"):
        decoder.step(torch.tensor([6]), cache)


def test_a_step_gives_probabilities() -> None:
    decoder = tiny_model().decoder
    step = decoder.step(torch.tensor([1]), decoder.start(memory_of(3)[0], capacity=1))
    torch.testing.assert_close(step.exp().sum(dim=-1), torch.ones(1))
