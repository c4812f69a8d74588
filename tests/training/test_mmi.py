"""Lattice-free MMI: what is summed frame by frame is the sum over all paths."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from training.ctc import ctc_losses
from training.mmi import log_denominators, log_priors, mmi_losses, phone_trigram

PHONES = 4
TRIGRAM = phone_trigram([[1, 2, 3, 1], [2, 2, 1], [3, 1, 1, 2]], PHONES).double()


def mmi_loss(logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, trigram: Tensor) -> Tensor:
    arguments = (torch.log_softmax(logits.float(), dim=-1), lengths, targets, target_lengths)
    return mmi_losses(*arguments, trigram, ctc_losses(*arguments)).sum()


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [phone for place, phone in enumerate(path) if phone and (place == 0 or path[place - 1] != phone)]


def prior(phones: list[int]) -> Tensor:
    probability = torch.ones((), dtype=torch.float64)
    for history in zip([0, 0, *phones], [0, *phones], phones, strict=False):
        probability = probability * TRIGRAM[history]
    return probability


def enumerated(log_probs: Tensor, target: list[int] | None = None) -> Tensor:
    """log Σ p(path)·P(phones) over all paths through (T, N), or those of `target`."""
    frames = torch.arange(len(log_probs))
    scores = [
        log_probs[frames, torch.tensor(path)].sum() + prior(phones).log()
        for path in itertools.product(range(PHONES), repeat=len(log_probs))
        if (phones := collapsed(path)) == target or target is None
    ]
    return torch.stack(scores).logsumexp(0)


@pytest.fixture
def logits() -> Tensor:
    torch.manual_seed(3)
    return (2 * torch.randn(3, 5, PHONES, dtype=torch.float64)).requires_grad_()


LENGTHS = torch.tensor([5, 3, 1])


def test_the_denominator_and_its_gradient_are_those_of_all_paths(logits: Tensor) -> None:
    log_probs = torch.log_softmax(logits, dim=-1)
    found = log_denominators(log_probs, LENGTHS, TRIGRAM)
    expected = torch.stack([enumerated(row[:length]) for row, length in zip(log_probs, LENGTHS.tolist(), strict=True)])
    torch.testing.assert_close(found, expected)
    weights = torch.tensor([1.0, -2.0, 0.5])  # a row's gradient is its own
    of_found, of_expected = (
        torch.autograd.grad((value * weights).sum(), logits, retain_graph=True)[0] for value in (found, expected)
    )
    torch.testing.assert_close(of_found, of_expected)
    assert not of_found[1, 3:].any(), "what lies beyond a row's end has no gradient"


def test_the_loss_is_minus_the_log_of_the_transcripts_share_of_all_paths(logits: Tensor) -> None:
    targets, lengths = torch.tensor([[1, 1], [2, 0], [0, 0]]), torch.tensor([2, 1, 0])
    log_probs = torch.log_softmax(logits, dim=-1)
    shares = [
        enumerated(row[:length]) - enumerated(row[:length], target)
        for row, length, target in zip(log_probs, LENGTHS.tolist(), [[1, 1], [2], []], strict=True)
    ]
    found = mmi_loss(logits, LENGTHS, targets, lengths, TRIGRAM.float())
    torch.testing.assert_close(found.double(), torch.stack(shares).sum(), rtol=1e-5, atol=1e-5)
    assert min(shares) > 0


def test_a_transcript_that_the_frames_cannot_hold_adds_nothing(logits: Tensor) -> None:
    targets, lengths = torch.tensor([[1, 2], [2, 2], [3, 1]]), torch.tensor([2, 2, 2])
    both = mmi_loss(logits, LENGTHS, targets, lengths, TRIGRAM.float())
    alone = mmi_loss(logits[:2], LENGTHS[:2], targets[:2], lengths[:2], TRIGRAM.float())
    torch.testing.assert_close(both, alone)  # two phones do not fit into one frame
    (gradient,) = torch.autograd.grad(both, logits)
    assert torch.isfinite(gradient).all()
    assert not gradient[2].any()


def test_a_long_utterance_neither_overflows_nor_vanishes() -> None:
    torch.manual_seed(0)
    long = (10 * torch.randn(1, 2000, PHONES)).requires_grad_()
    loss = mmi_loss(
        long, torch.tensor([2000]), torch.ones(1, 300, dtype=torch.long), torch.tensor([300]), TRIGRAM.float()
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(long.grad).all()


def test_each_history_has_a_distribution_and_one_never_seen_has_that_of_its_last_phone() -> None:
    torch.testing.assert_close(TRIGRAM.sum(-1), torch.ones(PHONES, PHONES).double())
    assert not TRIGRAM[..., 0].any()
    assert (TRIGRAM[..., 1:] > 0).all()
    unseen = phone_trigram([[1, 2, 3], [1, 2, 3]], PHONES)
    torch.testing.assert_close(unseen[3, 2], unseen[2, 2])  # neither 3 2 nor 2 2 was seen
    assert unseen[1, 2, 3] > unseen[3, 2, 3] > unseen[3, 2, 1]


def test_priors_are_the_product_along_each_row() -> None:
    found = log_priors(torch.tensor([[1, 2, 3], [2, 0, 0]]), torch.tensor([3, 1]), TRIGRAM)
    torch.testing.assert_close(found, torch.stack([prior([1, 2, 3]), prior([2])]).log())


@pytest.mark.parametrize("sequence", [[0], [1, 4], [-1]])
def test_phones_that_are_none_are_refused(sequence: list[int]) -> None:
    with pytest.raises(ValueError, match="between 1 and 3"):
        phone_trigram([sequence], PHONES)


def test_autocast_changes_neither_loss_nor_gradient() -> None:
    torch.manual_seed(5)
    logits = (3 * torch.randn(2, 30, PHONES)).requires_grad_()
    targets, target_lengths = torch.tensor([[1, 2, 3, 1], [2, 2, 1, 0]]), torch.tensor([4, 3])
    lengths, trigram = torch.tensor([30, 24]), TRIGRAM.float()
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = mmi_loss(logits, lengths, targets, target_lengths, trigram)
        found.append((loss, torch.autograd.grad(loss, logits)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
