"""A training step off the host. No GPU is needed: on the `meta` device too, a tensor left on the CPU is an error."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch
from torch import Tensor

from asr_service.model.encoder import ChunkMask
from asr_service.model.transformer import Transformer
from tests.training.conftest import MODEL, Corpus
from training.dataset import make_batch, pad_targets
from training.loss import losses, target_counts
from training.mmi import phone_trigram
from training.optim import make_optimizers
from training.recipe import LossConfig, OptimConfig

META = torch.device("meta")


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `meta` lacks: autocast, and the CTC loss, for which the sum of its scores stands."""

    def ctc_loss(log_probs: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor, **_: object) -> Tensor:
        assert {each.device for each in (log_probs, targets, lengths, target_lengths)} == {META}
        return log_probs.sum((0, 2))

    monkeypatch.setattr(torch.nn.functional, "ctc_loss", ctc_loss)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("chunk", [None, ChunkMask(8, 4)], ids=["whole", "chunks"])
def test_every_loss_gradient_and_update_is_where_the_model_is(corpus: Corpus, chunk: ChunkMask | None) -> None:
    examples = corpus.examples[:2]
    batch = make_batch([*examples, *examples], corpus.store, corpus.front_end())
    sequences = [(3, 4, 5), (6, 7)]
    phones, phone_lengths = pad_targets([*sequences, *sequences])
    batch = dataclasses.replace(batch, phones=phones, phone_lengths=phone_lengths, views=2)
    trigram = phone_trigram(sequences, 40).to(META)
    config = LossConfig(phone_mmi=0.3, consistency=0.1)
    model = Transformer(dataclasses.replace(MODEL, phone_vocab_size=40, phone_layer=1)).train().to(META)
    parts = losses(model, batch.to(META), config, chunk, target_counts(batch), trigram)
    assert set(parts) == {*target_counts(batch), "total"}
    torch.autograd.backward(parts["total"])
    tensors = [*parts.values(), *(parameter.grad for parameter in model.parameters())]
    assert {None if each is None else each.device for each in tensors} == {META}
    _, muon = make_optimizers(model, OptimConfig(optimizer="muon"))
    muon.step()
    assert {value.device for state in muon.state.values() for value in state.values()} == {META}
