"""Packed linear layers: the model's own numbers in fp32, and near them in bf16."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from asr_service.decoding.prefix_scores import attention_scores
from asr_service.model.cache import EncoderCache
from asr_service.model.packed import PackedLinear, packed
from asr_service.model.precision import DTYPES, Precision
from asr_service.model.transformer import Transformer
from tests.model.conftest import TINY, random_features, tiny_model
from tests.precisions import PRECISIONS
from training.likelihoods import log_likelihoods

TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "bf16": 0.1}


def chunks(model: Transformer, precision: Precision) -> list[torch.Tensor]:
    """Two rows, six chunks with look-ahead."""
    features, _ = random_features(220, 220)
    cache = EncoderCache.empty(model.config, 2, 16, 12, dtype=DTYPES[precision])
    lengths, kept = torch.full((2,), 48), torch.full((2,), 32)
    return [
        model.encoder.forward_chunk(features[:, begin : begin + 48], lengths, cache, kept=kept).hidden
        for begin in range(0, 170, 32)
    ]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", [{}, {"norm": "post", "activation": "relu"}])
def test_a_packed_model_gives_what_the_model_gives(precision: Precision, kind: dict[str, str]) -> None:
    model = tiny_model(**kind)
    served, tolerance = packed(model, precision), TOLERANCES[precision]
    for ours, expected in zip(chunks(served, precision), chunks(model, "fp32"), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance)
    features, lengths = random_features(150, 97)
    ours, expected = served.encode(features, lengths), model.encode(features, lengths)
    for row in range(2):
        frames = int(expected.lengths[row])
        torch.testing.assert_close(ours.hidden[row, :frames], expected.hidden[row, :frames], rtol=0, atol=tolerance)
    sequences = [(3, 4, 5), (3, 4), (), (7, 7)]
    scores = [log_likelihoods(attention_scores(m.decoder, expected.hidden[0]), sequences) for m in (served, model)]
    torch.testing.assert_close(*scores, rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_packing_changes_nothing_of_the_model_itself(precision: Precision) -> None:
    model = Transformer(dataclasses.replace(TINY))
    names, weights = zip(*model.state_dict().items(), strict=True)
    copies = [weight.clone() for weight in weights]
    served = packed(model, precision)
    after = model.state_dict()
    assert tuple(after) == names
    for name, weight, copy in zip(names, weights, copies, strict=True):
        assert after[name] is weight or after[name].data_ptr() == weight.data_ptr()
        torch.testing.assert_close(after[name], copy, rtol=0, atol=0)
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    assert all(module.product_dtype is None for module in model.modules() if hasattr(module, "product_dtype"))
    assert any(isinstance(module, PackedLinear) for module in served.modules())
    assert served.decoder.embedding.weight is model.decoder.embedding.weight, "what is not packed is not held twice"


def test_without_onednn_the_layers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model = tiny_model()
    served = packed(model, "fp32")
    for ours, expected in zip(chunks(served, "fp32"), chunks(model, "fp32"), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)
