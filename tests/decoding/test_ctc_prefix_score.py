from __future__ import annotations

import math

import pytest
import torch

from asr_service.decoding.ctc_prefix_score import CTCPrefixScorer
from tests.decoding.alignments import labelling_probabilities


def random_log_probs(frames: int, vocabulary: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(2 * torch.randn(frames, vocabulary, generator=generator), dim=-1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("walk", [(1, 2, 3), (1, 1, 2), (2, 2, 2), (3, 1, 3)])
def test_prefix_score_is_the_sum_over_all_labellings_that_start_with_it(walk: tuple[int, ...], seed: int) -> None:
    log_probs = random_log_probs(6, 4, seed)
    probabilities = labelling_probabilities(log_probs)
    scorer = CTCPrefixScorer(log_probs)
    state, prefix = scorer.start(), ()
    assert math.exp(state.complete.item()) == pytest.approx(probabilities[()], rel=1e-6)
    for token in walk:
        scores = scorer.scores(state, torch.tensor([[1, 2, 3]]))
        for column, candidate in enumerate((1, 2, 3)):
            grown = (*prefix, candidate)
            expected = sum(p for labels, p in probabilities.items() if labels[: len(grown)] == grown)
            assert math.exp(scores[0, column].item()) == pytest.approx(expected, rel=1e-6, abs=1e-12)
        state, prefix = scorer.extended(state, torch.tensor([0]), torch.tensor([token])), (*prefix, token)
        assert math.exp(state.complete.item()) == pytest.approx(probabilities[prefix], rel=1e-6, abs=1e-12)


def test_prefixes_scored_together_equal_each_alone() -> None:
    scorer = CTCPrefixScorer(random_log_probs(40, 8, 0))
    first = scorer.extended(scorer.start(), torch.tensor([0, 0, 0, 0]), torch.tensor([1, 2, 3, 4]))
    candidates = torch.tensor([[1, 2, 5]] * 4)
    together = scorer.scores(first, candidates)
    rows, tokens = torch.tensor([3, 0, 3]), torch.tensor([4, 2, 5])
    longer = scorer.extended(first, rows, tokens)
    for row in range(4):
        alone = scorer.extended(scorer.start(), torch.tensor([0]), torch.tensor([row + 1]))
        torch.testing.assert_close(together[row : row + 1], scorer.scores(alone, candidates[:1]))
    for place, (row, token) in enumerate(zip(rows.tolist(), tokens.tolist(), strict=True)):
        alone = scorer.extended(scorer.start(), torch.tensor([0]), torch.tensor([row + 1]))
        alone = scorer.extended(alone, torch.tensor([0]), torch.tensor([token]))
        torch.testing.assert_close(longer.complete[place], alone.complete[0])


def test_a_long_and_certain_utterance_keeps_its_precision() -> None:
    """The running product spans thousands of nepers; a prefix the audio is sure of still scores near zero."""
    frames = 600
    log_probs = torch.full((frames, 4), -12.0)
    log_probs[:, 0] = 0.0
    log_probs[1::3, 0], log_probs[1::3, 1] = -12.0, 0.0
    log_probs = torch.log_softmax(log_probs, dim=-1)
    scorer = CTCPrefixScorer(log_probs)
    state = scorer.start()
    for _ in range(200):
        state = scorer.extended(state, torch.tensor([0]), torch.tensor([1]))
    expected = -torch.nn.functional.ctc_loss(
        log_probs.double().unsqueeze(1), torch.ones(1, 200, dtype=torch.long), [frames], [200], reduction="sum"
    )
    assert state.complete.item() == pytest.approx(expected.item(), abs=1e-4)
