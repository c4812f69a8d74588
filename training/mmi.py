"""Maximum mutual information over phones without lattices, in the topology of CTC (CTC-CRF, Xiang and Ou 2019).

CTC makes the right phones likely, frame by frame; a search weighs them against all other words that a language model
holds possible. So does this objective, with a phone trigram in the language model's place (lattice-free MMI, Povey et
al. 2016):

    loss = log Σ_paths p(path | audio)·P(phones of path) - log Σ_{paths of the transcript} p(path | audio)·P(phones)

Dimensions: B batch, T frames, N phones with blank (0, which in a history is the beginning), U target phones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def phone_trigram(sequences: Iterable[Sequence[int]], phones: int) -> Tensor:
    """P[h, i, j] of phone j after phones h and i, (N, N, N), by interpolation (Witten and Bell 1991); P[…, 0] is 0.

    Ends are not modelled: an utterance may stop anywhere. Raises ValueError for a phone that is none of 1 to N-1.
    """
    counts = torch.zeros(phones, phones, phones, dtype=torch.float64)
    for sequence in sequences:
        padded = torch.tensor([0, 0, *sequence])
        if len(sequence) and not 0 < int(padded[2:].min()) <= int(padded[2:].max()) < phones:
            raise ValueError(f"phones must lie between 1 and {phones - 1}: {list(sequence)}")
        counts.index_put_((padded[:-2], padded[1:-1], padded[2:]), torch.ones((), dtype=torch.float64), accumulate=True)
    uniform = torch.full((phones,), 1.0 / (phones - 1), dtype=torch.float64)
    uniform[0] = 0.0
    unigram = _interpolated(counts.sum((0, 1)), uniform)
    bigram = _interpolated(counts.sum(0), unigram)
    return _interpolated(counts, bigram).float()


def _interpolated(counts: Tensor, lower: Tensor) -> Tensor:
    """(c(j) + n·lower(j)) / (c + n), n the kinds of phones seen in this history; `lower` where none was."""
    kinds = (counts > 0).sum(-1, keepdim=True)
    total = counts.sum(-1, keepdim=True) + kinds
    return torch.where(total > 0, (counts + kinds * lower) / total.clamp(min=1), lower)


class _LogDenominator(torch.autograd.Function):
    """log Σ over all paths, (B,); its gradient by the forward-backward algorithm.

    A state is a history of two phones, after a blank or after the last of them. Both kinds lie in memory as (N, B, N),
    last phone, row, phone before. Probabilities are scaled to a sum of one in every frame (Rabiner 1989, section V.A).
    """

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, lengths: Tensor, trigram: Tensor) -> Tensor:
        rows, frames, phones = log_probs.shape
        present = torch.arange(frames, device=lengths.device) < lengths.unsqueeze(1)
        # Beyond its end a row sees blanks that cost nothing.
        probs = torch.where(present.unsqueeze(-1), log_probs.exp(), F.one_hot(lengths.new_zeros(()), phones))
        probs = probs.permute(1, 2, 0).contiguous()  # (T, N, B)
        after = trigram.transpose(0, 1).contiguous()  # (last, before, next)
        again = trigram.diagonal(dim1=1, dim2=2).T.unsqueeze(1)  # (last, 1, before): the last phone once more
        states = log_probs.new_zeros(frames + 1, 2, phones, rows, phones)
        states[0, 1, 0, :, 0] = 1.0
        scales = log_probs.new_empty(frames, rows)
        for frame in range(frames):
            spoken, paused = states[frame]
            either = spoken + paused
            moved = torch.bmm(either, after)  # (last, B, next)
            # The same phone twice in a row needs a blank in between.
            moved.diagonal(dim1=0, dim2=2).sub_((spoken * again).sum(-1).T)
            new = states[frame + 1]
            torch.mul(moved.permute(2, 1, 0) + spoken, probs[frame].unsqueeze(-1), out=new[0])
            torch.mul(either, probs[frame, 0].unsqueeze(-1), out=new[1])
            scales[frame] = new.sum((0, 1, 3))
            new.div_(scales[frame].unsqueeze(-1))
        ctx.save_for_backward(probs, present, after, again, states, scales)
        return scales.log().sum(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        probs, present, after, again, states, scales = ctx.saved_tensors
        frames, phones, rows = probs.shape
        before = after.transpose(1, 2).contiguous()  # (last, next, before)
        occupied = probs.new_empty(frames, phones, rows)
        spoken, paused = torch.ones_like(states[0])  # what follows a state, as a share of the whole
        for frame in range(frames - 1, -1, -1):
            alpha = states[frame + 1]
            occupied[frame] = (alpha[0] * spoken).sum(-1)
            occupied[frame, 0] = (alpha[1] * paused).sum((0, 2))
            weights = (probs[frame] / scales[frame]).unsqueeze(-1)
            stayed = spoken * weights
            moved = stayed.permute(2, 1, 0).contiguous()  # (last, B, next)
            paused = torch.bmm(moved, before) + paused * weights[0]
            spoken = paused + stayed - again * moved.diagonal(dim1=0, dim2=2).T.unsqueeze(-1)
        gradient = occupied.permute(2, 0, 1) * present.unsqueeze(-1) * gradients[0][:, None, None]
        return gradient, None, None


def log_denominators(log_probs: Tensor, lengths: Tensor, trigram: Tensor) -> Tensor:
    """Log Σ_paths p(path)·P(phones of path), (B,), of log-probabilities (B, T, N) in float32."""
    # Autocast would take the forward pass's products in bf16: what a difference of two of them leaves is then wrong.
    with torch.autocast(log_probs.device.type, enabled=False):
        out: Tensor = _LogDenominator.apply(log_probs, lengths, trigram)  # type: ignore[no-untyped-call]
    return out


def log_priors(targets: Tensor, target_lengths: Tensor, trigram: Tensor) -> Tensor:
    """Log P of the target phones, (B, U) padded, under the trigram: (B,)."""
    histories = F.pad(targets, (2, 0))
    log_probs = trigram[histories[:, :-2], histories[:, 1:-1], targets].log()
    inside = torch.arange(targets.shape[1], device=targets.device) < target_lengths.unsqueeze(1)
    return torch.where(inside, log_probs, 0.0).sum(1)


def mmi_losses(
    log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, trigram: Tensor, right: Tensor
) -> Tensor:
    """The objective, (B,), of log-probabilities (B, T, N), none below 0; `right` are their `ctc.ctc_losses`.

    An utterance with too few frames for its targets has no path: 0.
    """
    losses = log_denominators(log_probs, lengths, trigram) + right - log_priors(targets, target_lengths, trigram)
    return torch.where(right > 0, losses, 0.0)  # 0 stands for infinity
