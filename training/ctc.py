"""CTC's negative log-likelihood (Graves et al. 2006) and its gradient; on a CPU compiled, and several times as fast as
torch's, which adds up logarithms state by state.

Here probabilities are added up, scaled to a sum of one in every frame (Rabiner 1989, section V.A). Only states are
counted from which a path can still end in time, so some path remains. A state with next to nothing of its frame's sum
is dropped; an utterance where that may count, or with a label that no float holds, is left to torch.

Dimensions: B batch, T frames, V labels with blank (0), U target labels.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from asr_service.decoding.compiled import compiled

# Natural logarithms. Of a label in a frame: a float holds no less.
_LEAST = -80.0
# A state's share of its frame below which it is dropped: one over it is a double, too.
_DROPPED = -660.0
_TINY = float(np.exp(_DROPPED))
# What is so far below the likelihood is nothing beside it.
_NOTHING = -30.0

_States: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], bool]


def ctc_losses(log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """-log p(targets | audio), (B,), of log-probabilities (B, T, V) in float32 and targets (B, U) padded with 0.

    An utterance with too few frames for its targets has no path: 0, and no gradient. On a CPU raises ValueError for a
    length or a label that is out of bounds.
    """
    if log_probs.device.type == "cpu":
        losses: Tensor = _Ctc.apply(log_probs, lengths, targets, target_lengths)  # type: ignore[no-untyped-call]
        return losses
    return _torchs(log_probs, lengths, targets, target_lengths)


def _torchs(log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    return F.ctc_loss(
        log_probs.transpose(0, 1), targets, lengths, target_lengths, blank=0, reduction="none", zero_infinity=True
    )


class _Ctc(torch.autograd.Function):
    """The gradient of a log-probability is minus how long its label is occupied, summed over all paths."""

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
        _check(log_probs, lengths, targets, target_lengths)
        arguments = (log_probs.detach().contiguous(), lengths, targets.contiguous(), target_lengths)
        doubtful = ~(arguments[0].amin((1, 2)) >= _LEAST)  # NaN is, too
        inputs = (arguments[0].exp(), arguments[0].amax(-1), *arguments[1:], doubtful)
        losses, occupied = map(torch.from_numpy, _forward_backward(*(each.numpy() for each in inputs)))
        if bool(doubtful.any()):
            losses[doubtful], occupied[doubtful] = _in_logarithms(*(each[doubtful] for each in arguments))
        ctx.save_for_backward(occupied)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (occupied,) = ctx.saved_tensors
        return occupied * -gradients[0][:, None, None], None, None, None


def _check(log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> None:
    """Compiled code would read what is out of bounds."""
    for name, values, most in (
        ("lengths", lengths, log_probs.shape[1]),
        ("target_lengths", target_lengths, targets.shape[1]),
        ("targets", targets, log_probs.shape[2] - 1),
    ):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) <= most:
            raise ValueError(f"{name} must lie between 0 and {most}")


@torch.enable_grad()
def _in_logarithms(
    log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses (B,), and how long each label is occupied, (B, T, V), by torch, in double precision: in single precision a
    loss of thousands leaves two digits of an occupation.
    """
    log_probs = log_probs.double().requires_grad_()
    losses = _torchs(log_probs, lengths, targets, target_lengths)
    (gradient,) = torch.autograd.grad(losses.sum(), log_probs)
    # Torch's gradient is that of the logits: of a softmax before it the gradient is the difference in any case.
    there = (torch.arange(log_probs.shape[1]) < lengths.unsqueeze(1)) & (losses > 0).unsqueeze(1)
    occupied = torch.where(there.unsqueeze(-1), log_probs.detach().exp() - gradient, 0.0)
    return losses.detach().float(), occupied.float()


@compiled
def _forward_backward(
    probs: NDArray[np.float32],
    best: NDArray[np.float32],
    lengths: NDArray[np.int64],
    targets: NDArray[np.int64],
    target_lengths: NDArray[np.int64],
    doubtful: NDArray[np.bool_],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Losses (B,) and how long each label is occupied, (B, T, V), both 0 where there is no path.

    `best`: (B, T) log-probability of the likeliest label. Rows that are `doubtful` (B,) are left out, and those become
    it where a path that counts may have been dropped.
    """
    losses = np.zeros(probs.shape[0], dtype=np.float32)
    occupied = np.zeros(probs.shape, dtype=np.float32)
    for row in range(len(lengths)):
        emitted, tokens = probs[row, : lengths[row]], targets[row, : target_lengths[row]]
        direct = np.ones(len(tokens) + 1)  # 0 where a label repeats the one before, and needs a blank between
        for i in range(1, len(tokens)):
            direct[i] = tokens[i] != tokens[i - 1]
        if not doubtful[row] and len(emitted) >= len(tokens) + (direct == 0.0).sum():
            states = _forward(emitted, best[row], tokens, direct)
            losses[row], doubtful[row] = -np.log(states[2]).sum(), states[3]
            if not doubtful[row]:
                _backward(emitted, tokens, direct, states, occupied[row])
    return losses, occupied


@compiled
def _forward(
    emitted: NDArray[np.float32],
    best: NDArray[np.float32],
    tokens: NDArray[np.int64],
    direct: NDArray[np.float64],
) -> _States:
    """Shares of labels and blanks in their frame, (T, U+1) each, what they were divided by, (T,), and whether one may
    count that was dropped.

    Label i+1: the path stands on label i; label 0 is never reached. Blank i: on the blank before label i.
    """
    frames, count = len(emitted), len(tokens)
    label, blank, scales = np.zeros((frames, count + 1)), np.zeros((frames, count + 1)), np.empty(frames)
    # How many frames a path needs after the one in which it is in a state.
    label_needs, blank_needs = np.zeros(count + 1, dtype=np.int64), np.zeros(count + 1, dtype=np.int64)
    for i in range(count - 1, -1, -1):
        blank_needs[i] = label_needs[i + 1] + 1
        label_needs[i] = blank_needs[i] + (direct[i] == 0.0)
    first_label, first_blank = 1, 0
    # No path from here is likelier than the best label of each frame: what has been dropped can come to at most `lost`.
    heard, to_come, lost = 0.0, best[:frames].sum(), -np.inf
    for t in range(frames):
        while first_label <= count and label_needs[first_label] >= frames - t:
            first_label += 1
        while blank_needs[first_blank] >= frames - t:
            first_blank += 1
        if t == 0:
            blank[0, first_blank:1] = emitted[0, 0]
            label[0, 1:2] = emitted[0, tokens[:1]]
        else:
            for i in range(first_label, count + 1):
                moved = blank[t - 1, i - 1] + direct[i - 1] * label[t - 1, i - 1]
                label[t, i] = (label[t - 1, i] + moved) * emitted[t, tokens[i - 1]]
            for i in range(first_blank, count + 1):
                blank[t, i] = (blank[t - 1, i] + label[t - 1, i]) * emitted[t, 0]
        scales[t] = label[t].sum() + blank[t].sum()
        heard += np.log(scales[t])
        to_come -= best[t]
        lost = max(lost, heard + _DROPPED + to_come)
        for i in range(count + 1):
            label[t, i] = label[t, i] / scales[t] if label[t, i] > _TINY * scales[t] else 0.0
            blank[t, i] = blank[t, i] / scales[t] if blank[t, i] > _TINY * scales[t] else 0.0
    return label, blank, scales, lost > heard + _NOTHING


@compiled
def _backward(
    emitted: NDArray[np.float32],
    tokens: NDArray[np.int64],
    direct: NDArray[np.float64],
    states: _States,
    occupied: NDArray[np.float32],
) -> None:
    """Fill in `occupied` (T, V), which is 0."""
    label, blank, scales, _ = states
    count = len(tokens)
    # What follows a state, as a share of all; the same with the state's own emission. Nothing beyond the last label.
    label_after, blank_after = np.zeros(count + 2), np.zeros(count + 2)
    label_next, blank_next = np.zeros(count + 2), np.zeros(count + 2)
    label_after[count], blank_after[count] = 1.0, 1.0
    for t in range(len(emitted) - 1, -1, -1):
        paused = 0.0
        for i in range(count + 1):
            paused += blank[t, i] * blank_after[i]
            blank_next[i] = blank_after[i] * (emitted[t, 0] / scales[t])
        occupied[t, 0] = paused
        for i in range(1, count + 1):
            occupied[t, tokens[i - 1]] += label[t, i] * label_after[i]
            label_next[i] = label_after[i] * (emitted[t, tokens[i - 1]] / scales[t])
        if t > 0:
            # Nothing follows where the path cannot have been: it could be more than a double holds.
            for i in range(count + 1):
                after = label_next[i] + blank_next[i] + direct[i] * label_next[i + 1]
                label_after[i] = after if label[t - 1, i] > 0.0 else 0.0
                after = blank_next[i] + label_next[i + 1]
                blank_after[i] = after if blank[t - 1, i] > 0.0 else 0.0
