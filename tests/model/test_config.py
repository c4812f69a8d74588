"""Presets and settings of the model: what does not fit is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from asr_service.errors import ConfigError
from asr_service.model.config import PRESETS, TransformerConfig, preset
from asr_service.model.transformer import Transformer
from tests.model.conftest import random_features


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"d_model": 250}, ["d_model", "n_heads"]),
        ({"n_heads": 3}, ["d_model", "n_heads"]),
        ({"d_model": 12, "n_heads": 4}, ["d_model", "n_heads"]),
        ({"conv_kernel": 8}, ["conv_kernel"]),
        ({"downsample_after": 0}, ["downsample_after"]),
        ({"downsample_after": 11}, ["downsample_after"]),
        ({"phone_layer": 5}, ["phone_layer"]),
        ({"phone_layer": 0}, ["phone_layer"]),
        ({"dropout": 1.0}, ["dropout"]),
        ({"vocab_size": 3}, ["vocab_size"]),
        ({"stem": "conv8"}, ["stem", "conv4"]),
        ({"positions": "rotarry"}, ["positions", "rotary"]),
        ({"norm": "none"}, ["norm", "pre", "post"]),
        ({"activation": "swish"}, ["activation", "relu", "gelu"]),
    ],
)
def test_a_setting_that_does_not_fit_is_named(changes: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        TransformerConfig(**changes)
    assert all(name in str(caught.value) for name in names)
    assert str(next(iter(changes.values()))) in str(caught.value)


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'d_modle'.*d_model"):
        TransformerConfig.from_dict({"d_modle": 256})


def test_an_unknown_preset_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'whisper-huge'.*streaming-s.*transformer"):
        preset("whisper-huge")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_comes_back_from_its_dictionary(name: str) -> None:
    assert TransformerConfig.from_dict(preset(name).to_dict()) == preset(name)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs_and_gives_the_shapes_it_promises(name: str) -> None:
    config = preset(name)
    model = Transformer(config).eval()
    features, lengths = random_features(70, 41, n_mels=80)
    output = model.encode(features, lengths)
    frames = -(-70 // config.output_subsampling)
    assert output.hidden.shape == (2, frames, config.d_model)
    assert model.ctc_logits(output).shape == (2, frames, config.vocab_size)
    assert model.decoder_logits(lengths.new_ones(2, 3), output).shape == (2, 3, config.vocab_size)
    phones = model.phone_logits(output)
    if config.phone_vocab_size:
        assert phones is not None
        assert phones.shape == (2, -(-70 // config.subsampling), config.phone_vocab_size)
    else:
        assert phones is None
