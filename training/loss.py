"""The objective: CTC on phones (lower and upper) and word pieces, and label-smoothed cross-entropy of the decoder.

Hybrid CTC/attention after Watanabe et al. 2017. Dimensions: B batch, T frames, U tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_service.model.encoder import ChunkMask
from asr_service.model.transformer import Transformer
from asr_service.tokenizer import WordPieces
from training.recipe import LossConfig


@dataclass(slots=True)
class Batch:
    """One training batch.

    Attributes:
        features, lengths: (B, T, F) and (B,).
        tokens, token_lengths: word pieces, (B, U) padded with 0, and (B,).
        phones, phone_lengths: the same for phones.
        seconds: audio in it, without padding.
    """

    features: Tensor
    lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    phones: Tensor
    phone_lengths: Tensor
    seconds: float

    def to(self, device: torch.device) -> Batch:
        moved = (
            x.to(device, non_blocking=True)
            for x in (
                self.features,
                self.lengths,
                self.tokens,
                self.token_lengths,
                self.phones,
                self.phone_lengths,
            )
        )
        return Batch(*moved, seconds=self.seconds)


def ctc_loss(logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """CTC negative log-likelihood per target token (Graves et al. 2006); logits (B, T, V).

    An utterance with too few frames for its target has no alignment: it adds nothing here (`zero_infinity`), and the
    data preparation counts such utterances.
    """
    log_probs = torch.log_softmax(logits.float(), dim=-1).transpose(0, 1)
    total = F.ctc_loss(log_probs, targets, lengths, target_lengths, blank=0, reduction="sum", zero_infinity=True)
    return total / target_lengths.sum().clamp(min=1)


def attention_loss(model: Transformer, batch: Batch, output: object, smoothing: float) -> Tensor:
    """Label-smoothed cross-entropy per token, end token included."""
    bos = batch.tokens.new_full((batch.tokens.shape[0], 1), WordPieces.bos_id)
    inputs = torch.cat([bos, batch.tokens], dim=1)
    steps = torch.arange(inputs.shape[1], device=inputs.device).unsqueeze(0)
    ends = batch.token_lengths.unsqueeze(1)
    targets = torch.cat([batch.tokens, batch.tokens.new_zeros(len(batch.tokens), 1)], dim=1)
    targets = torch.where(steps == ends, WordPieces.eos_id, targets).masked_fill(steps > ends, -100)
    logits = model.decoder_logits(inputs, output)  # type: ignore[arg-type]
    return F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), label_smoothing=smoothing, ignore_index=-100
    )


def losses(model: Transformer, batch: Batch, config: LossConfig, chunk: ChunkMask | None) -> dict[str, Tensor]:
    """Every part by name, and their weighted sum as `total`."""
    output = model.encode(batch.features, batch.lengths, chunk)
    parts: dict[str, Tensor] = {}
    weights = {"ctc": config.ctc, "attention": config.attention}
    if output.lower_phone_logits is not None:
        phones = (batch.phones, batch.phone_lengths)
        parts["lower_phone_ctc"] = ctc_loss(output.lower_phone_logits, output.phone_lengths, *phones)
        upper = model.phone_logits(output)
        assert upper is not None
        parts["phone_ctc"] = ctc_loss(upper, output.phone_lengths, *phones)
        weights |= {"lower_phone_ctc": config.lower_phone_ctc, "phone_ctc": config.phone_ctc}
    parts["ctc"] = ctc_loss(model.ctc_logits(output), output.lengths, batch.tokens, batch.token_lengths)
    parts["attention"] = attention_loss(model, batch, output, config.label_smoothing)
    parts["total"] = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
    return parts
