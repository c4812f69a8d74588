from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from asr_service.decoding.rescoring import ctc_log_likelihoods
from tests.decoding.alignments import labelling_probabilities


def test_ctc_log_likelihoods_are_sums_over_alignments() -> None:
    log_probs = torch.log_softmax(torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
    probabilities = labelling_probabilities(log_probs)
    sequences = [(1, 2), (), (3,), (1, 1), (2, 2, 2)]
    scores = ctc_log_likelihoods(log_probs, sequences)
    for score, labels in zip(scores.tolist(), sequences, strict=True):
        assert math.exp(score) == pytest.approx(probabilities[labels], rel=1e-5)


def test_a_sequence_that_does_not_fit_its_frames_is_impossible() -> None:
    log_probs = torch.log_softmax(torch.randn(3, 4), dim=-1)
    assert ctc_log_likelihoods(log_probs, [(1, 1, 1)]).item() == -math.inf
    assert ctc_log_likelihoods(log_probs[:0], [(), (1,)]).tolist() == [0.0, -math.inf]


def by_torch(log_probs: Tensor, sequences: list[list[int]]) -> Tensor:
    """One at a time, in logarithms."""
    return torch.stack(
        [
            -F.ctc_loss(
                log_probs.unsqueeze(1),
                torch.tensor([row], dtype=torch.long),
                torch.tensor([len(log_probs)]),
                torch.tensor([len(row)]),
                reduction="none",
            )[0]
            for row in sequences
        ]
    )


@given(st.lists(st.lists(st.integers(1, 5), max_size=12), min_size=1, max_size=6), st.integers(1, 30), st.data())
def test_ctc_log_likelihoods_are_those_of_torchs_ctc_loss(
    sequences: list[list[int]], frames: int, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    log_probs = torch.log_softmax(torch.randn(frames, 6, generator=generator) * data.draw(st.floats(0, 9)), dim=-1)
    ours, expected = ctc_log_likelihoods(log_probs, sequences), by_torch(log_probs, sequences)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-4)


def test_a_sequence_too_unlikely_for_a_double_has_its_likelihood_all_the_same() -> None:
    log_probs = torch.full((300, 4), -9.0)
    log_probs[:, 1] = 0.0
    sequences = [[1], [2] * 70, [2, 3] * 60]
    expected = by_torch(log_probs, sequences)
    assert expected[2] < -1000 and expected[1] < -600
    torch.testing.assert_close(ctc_log_likelihoods(log_probs, sequences), expected, rtol=1e-6, atol=1e-3)
