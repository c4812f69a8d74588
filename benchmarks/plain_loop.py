"""The training step one would write first for this model: what `training_speed` compares with."""

from __future__ import annotations

from typing import Literal
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_service.model import attention, encoder
from asr_service.model.config import preset
from asr_service.model.convolution import ConvolutionModule
from asr_service.model.layers import ChannelDropout, length_mask
from asr_service.model.positions import rotate
from asr_service.model.stem import ConvStem4
from asr_service.model.transformer import Transformer
from training import loss
from training.optim import make_optimizers
from training.recipe import LossConfig, OptimConfig


class PlainLoop:
    """The step one would write first, with AdamW for all, or `torch.optim.Muon` for what it has in ours."""

    def __init__(self, optimizer: Literal["adamw", "muon"]) -> None:
        self.model = Transformer(preset("streaming-s")).train()
        for module in self.model.modules():
            for name, child in module.named_children():
                if isinstance(child, ChannelDropout):
                    setattr(module, name, nn.Dropout(child.p))
        adamw, *muon = make_optimizers(self.model, OptimConfig(optimizer=optimizer))
        parameters = [parameter for group in adamw.param_groups for parameter in group["params"]]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(parameters, lr=1e-4)]
        for ours in muon:
            self.optimizers.append(torch.optim.Muon(ours.param_groups[0]["params"], lr=1e-4))

    @staticmethod
    def stem(stem: ConvStem4, features: Tensor, lengths: Tensor) -> Tensor:
        out: Tensor = stem.conv1(features.unsqueeze(1)).permute(0, 2, 3, 1)
        return out * length_mask(lengths, out.shape[1])[:, :, None, None]

    @staticmethod
    def depthwise(module: ConvolutionModule, gated: Tensor) -> Tensor:
        weight, channels = module.depthwise_weight.squeeze(-1), gated.shape[-1]
        return F.conv1d(gated.transpose(1, 2), weight, module.depthwise_bias, groups=channels).transpose(1, 2)

    @staticmethod
    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)

    @staticmethod
    def turn(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        return rotate(x, cosines[:, 0, half:], sines[:, 0, half:])

    @staticmethod
    def ctc(log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
        return F.ctc_loss(
            log_probs.transpose(0, 1), targets, lengths, target_lengths, reduction="none", zero_infinity=True
        )

    def step(self, batch: loss.Batch) -> None:
        with (
            mock.patch.object(attention, "attend", self.attend),
            mock.patch.object(encoder, "rotate_sequence", self.turn),
            mock.patch.object(ConvStem4, "_first", self.stem),
            mock.patch.object(ConvolutionModule, "depthwise", self.depthwise),
            mock.patch.object(loss, "ctc_losses", self.ctc),
        ):
            total = loss.losses(self.model, batch, LossConfig(), None)["total"]
        torch.autograd.backward(total)
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
