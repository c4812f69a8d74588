"""The objective: CTC on phones (lower and upper) and word pieces, label-smoothed cross-entropy of the decoder, and in a
discriminative stage maximum mutual information over the upper phones; two views of an utterance can be made to agree.

Hybrid CTC/attention after Watanabe et al. 2017. Dimensions: B batch, T frames, U tokens, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_service.model.encoder import ChunkMask, EncoderOutput
from asr_service.model.transformer import Transformer
from asr_service.tokenizer import WordPieces
from training.augmentation.device import on_device
from training.ctc import ctc_losses
from training.mmi import mmi_losses
from training.recipe import LossConfig


@dataclass(slots=True)
class Batch:
    """One training batch.

    Attributes:
        features, lengths: (B, T, F) and (B,).
        tokens, token_lengths: word pieces, (B, U) padded with 0, and (B,).
        phones, phone_lengths: the same for phones.
        seconds: audio in it, without padding, and each utterance once whatever its views.
        views: how often each utterance is in it, every time distorted another way: row i, i + B/views, and so on.
    """

    features: Tensor
    lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    phones: Tensor
    phone_lengths: Tensor
    seconds: float
    views: int = 1

    def to(self, device: torch.device) -> Batch:
        """The batch there; to a GPU it is copied in its turn (see `on_device`)."""
        fields: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        tensors = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
        there = {
            name: on_device(tensor, device) if device.type == "cuda" else tensor.to(device)
            for name, tensor in tensors.items()
        }
        return Batch(**fields | there)


def target_counts(batch: Batch) -> dict[str, int]:
    """Target tokens of each loss, what it is divided by. The decoder has one more an utterance, the end token."""
    tokens, phones = int(batch.token_lengths.sum()), int(batch.phone_lengths.sum())
    return {
        "lower_phone_ctc": phones,
        "phone_ctc": phones,
        "phone_mmi": phones,
        "phone_consistency": phones,
        "ctc": tokens,
        "piece_consistency": tokens,
        "attention": tokens + len(batch.token_lengths),
    }


def consistency_loss(own: Tensor, lengths: Tensor) -> Tensor:
    """How far two views of the same utterances are apart, summed over frames (CR-CTC, Yao et al. 2025).

    Log-probabilities (2·B, T, V), row i and row i + B alike but for their distortions. Each view learns from the other
    as it is: KL(sg(q) ‖ p) + KL(sg(p) ‖ q), sg holding the gradient back.
    """
    other = own.detach().roll(len(own) // 2, dims=0)
    apart = F.kl_div(own, other, reduction="none", log_target=True).sum(-1)
    inside = torch.arange(own.shape[1], device=own.device) < lengths.unsqueeze(1)
    return torch.where(inside, apart, 0.0).sum()


def attention_loss(model: Transformer, batch: Batch, output: EncoderOutput, smoothing: float) -> Tensor:
    """Label-smoothed cross-entropy, summed over the tokens, end tokens included."""
    bos = batch.tokens.new_full((batch.tokens.shape[0], 1), WordPieces.bos_id)
    inputs = torch.cat([bos, batch.tokens], dim=1)
    steps = torch.arange(inputs.shape[1], device=inputs.device).unsqueeze(0)
    ends = batch.token_lengths.unsqueeze(1)
    targets = torch.cat([batch.tokens, batch.tokens.new_zeros(len(batch.tokens), 1)], dim=1)
    targets = torch.where(steps == ends, WordPieces.eos_id, targets).masked_fill(steps > ends, -100)
    logits = model.decoder_logits(inputs, output)
    return F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), label_smoothing=smoothing, ignore_index=-100, reduction="sum"
    )


def _log_probs(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.float(), dim=-1)


def losses(
    model: Transformer,
    batch: Batch,
    config: LossConfig,
    chunk: ChunkMask | None,
    counts: Mapping[str, float] | None = None,
    trigram: Tensor | None = None,
) -> dict[str, Tensor]:
    """Every part by name, per target token, and their weighted sum as `total`.

    `counts` are the target tokens to divide by: those of a whole update, when this batch is only a share of it (several
    batches, several processes), so that the shares add up to the update's loss. None: the batch's own.
    `trigram` is that of `mmi.phone_trigram`, for a `phone_mmi` above 0.
    """
    counts = target_counts(batch) if counts is None else counts
    output = model.encode(batch.features, batch.lengths, chunk)
    # First, since torch's CTC loss waits until a GPU has done all that it was asked: it has the decoder to do by then.
    attention = attention_loss(model, batch, output, config.label_smoothing)
    sums: dict[str, Tensor] = {}
    paired = config.consistency > 0.0 and batch.views == 2
    weights = {"ctc": config.ctc, "attention": config.attention}
    weights |= dict.fromkeys(("phone_consistency", "piece_consistency"), config.consistency)
    if output.lower_phone_logits is not None:
        phones = (output.phone_lengths, batch.phones, batch.phone_lengths)
        sums["lower_phone_ctc"] = ctc_losses(_log_probs(output.lower_phone_logits), *phones).sum()
        upper_logits = model.phone_logits(output)
        assert upper_logits is not None
        upper = _log_probs(upper_logits)
        right = ctc_losses(upper, *phones)
        sums["phone_ctc"] = right.sum()
        weights |= {"lower_phone_ctc": config.lower_phone_ctc, "phone_ctc": config.phone_ctc}
        if trigram is not None:
            sums["phone_mmi"] = mmi_losses(upper, *phones, trigram, right).sum()
            weights["phone_mmi"] = config.phone_mmi
        if paired:
            sums["phone_consistency"] = consistency_loss(upper, output.phone_lengths)
    pieces = _log_probs(model.ctc_logits(output))
    sums["ctc"] = ctc_losses(pieces, output.lengths, batch.tokens, batch.token_lengths).sum()
    if paired:
        sums["piece_consistency"] = consistency_loss(pieces, output.lengths)
    sums["attention"] = attention
    parts = {name: value / max(1.0, counts[name]) for name, value in sums.items()}
    parts["total"] = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
    return parts


class Objective(nn.Module):
    """The model with its losses as one module: DistributedDataParallel sees what is computed in a `forward`."""

    def __init__(self, model: Transformer, config: LossConfig, trigram: Tensor | None = None) -> None:
        super().__init__()
        self.model, self.config, self.trigram = model, config, trigram

    def forward(self, batch: Batch, chunk: ChunkMask | None, counts: Mapping[str, float] | None) -> dict[str, Tensor]:
        return losses(self.model, batch, self.config, chunk, counts, self.trigram)
