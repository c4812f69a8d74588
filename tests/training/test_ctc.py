"""The compiled CTC loss against sums written out, and against torch's in double precision."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.ctc import ctc_losses
from training.dataset import pad_targets


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label)


@pytest.mark.parametrize("target", [(2, 2, 3), (1,), (), (3, 1, 3, 1, 3), (2, 2, 2)])
def test_it_is_the_sum_over_all_alignments(target: tuple[int, ...]) -> None:
    log_probs = torch.log_softmax(torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    log_probs.requires_grad_()
    paths = [path for path in itertools.product(range(4), repeat=5) if collapsed(path) == target]
    scores = log_probs[0][torch.arange(5), torch.tensor(paths)].sum(1)
    targets, lengths = pad_targets([target])
    found = ctc_losses(log_probs, torch.tensor([5]), targets, lengths)
    torch.testing.assert_close(found[0], -scores.logsumexp(0))
    (gradient,) = torch.autograd.grad(found.sum(), log_probs, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(-scores.logsumexp(0), log_probs)[0])


def torchs(logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    log_probs = torch.log_softmax(logits, dim=-1).transpose(0, 1)
    return F.ctc_loss(log_probs, targets, lengths, target_lengths, reduction="none", zero_infinity=True)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_losses_and_gradients_are_torchs_whatever_the_lengths(data: st.DataObject) -> None:
    rows, labels = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 6))
    spoken = st.lists(st.integers(1, labels - 1), max_size=9)  # often too many for the frames, often repeated
    targets, target_lengths = pad_targets([tuple(data.draw(spoken)) for _ in range(rows)])
    lengths = torch.tensor([data.draw(st.integers(1, 12)) for _ in range(rows)])
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    scale = data.draw(st.sampled_from([0.0, 1.0, 8.0]))  # up to nearly sure labels
    logits = (scale * torch.randn(rows, 12, labels, generator=generator)).requires_grad_()
    double = logits.detach().double().requires_grad_()
    weights = 1.0 + torch.arange(rows)  # a row's gradient is its own
    found = ctc_losses(torch.log_softmax(logits, dim=-1), lengths, targets, target_lengths)
    expected = torchs(double, lengths, targets, target_lengths)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert logits.grad is not None and double.grad is not None
    torch.testing.assert_close(logits.grad, double.grad.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("sharpness", "labels"), [(1.0, 300), (10.0, 300), (10.0, 900), (10.0, 1000)])
def test_long_utterances_whatever_the_model_thinks_of_them(sharpness: float, labels: int) -> None:
    """With as many labels as frames there is one path, and what the model takes to be likely cannot end in time."""
    generator = torch.Generator().manual_seed(0)
    logits = sharpness * torch.randn(1, 1000, 40, generator=generator)
    targets = 1 + torch.arange(labels).remainder(39).unsqueeze(0)
    single, double = logits.requires_grad_(), logits.detach().double().requires_grad_()
    lengths, target_lengths = torch.tensor([1000]), torch.tensor([labels])
    found = ctc_losses(torch.log_softmax(single, dim=-1), lengths, targets, target_lengths)
    expected = torchs(double, lengths, targets, target_lengths)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=0.0)
    found.backward()
    expected.backward()
    assert single.grad is not None and double.grad is not None
    torch.testing.assert_close(single.grad, double.grad.float(), rtol=1e-3, atol=1e-4)


def test_a_target_longer_than_its_frames_has_neither_loss_nor_gradient() -> None:
    logits = torch.randn(3, 6, 5, requires_grad=True)
    targets, target_lengths = pad_targets([(1, 2), (1, 2, 3, 4, 1, 2, 3), (1, 1, 1, 1)])
    losses = ctc_losses(torch.log_softmax(logits, dim=-1), torch.tensor([6, 6, 6]), targets, target_lengths)
    assert losses[0] > 0 and losses[1:].tolist() == [0.0, 0.0]
    losses.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0].any() and not logits.grad[1:].any()


def test_a_label_that_is_all_but_impossible_is_still_learnt() -> None:
    logits = torch.tensor([[[500.0, 0.0, 0.0], [500.0, 0.0, 0.0]]], requires_grad=True)
    losses = ctc_losses(torch.log_softmax(logits, dim=-1), torch.tensor([2]), torch.tensor([[1]]), torch.tensor([1]))
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.sum(1), torch.tensor([[1.0, -1.0, 0.0]]))


def test_a_label_that_no_float_holds_in_the_only_frame() -> None:
    logits = torch.tensor([[[500.0, 0.0]]], requires_grad=True)
    losses = ctc_losses(torch.log_softmax(logits, dim=-1), torch.tensor([1]), torch.tensor([[1]]), torch.tensor([1]))
    assert losses.tolist() == [500.0]


def test_what_is_no_number_makes_its_row_none_and_no_other() -> None:
    logits = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0))
    logits[1, 2:] = torch.nan
    targets, target_lengths = pad_targets([(1, 2), (1, 2), (3,)])
    losses = ctc_losses(torch.log_softmax(logits, dim=-1), torch.tensor([6, 6, 6]), targets, target_lengths)
    assert torch.isfinite(losses).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("name", "lengths", "targets", "target_lengths"),
    [("lengths", 7, 1, 1), ("target_lengths", 6, 1, 2), ("targets", 6, 5, 1), ("targets", 6, -1, 1)],
)
def test_what_is_out_of_bounds_is_refused(name: str, lengths: int, targets: int, target_lengths: int) -> None:
    log_probs = torch.log_softmax(torch.zeros(1, 6, 5), dim=-1)
    with pytest.raises(ValueError, match=f"^{name} must lie between 0 and"):
        ctc_losses(log_probs, torch.tensor([lengths]), torch.tensor([[targets]]), torch.tensor([target_lengths]))
