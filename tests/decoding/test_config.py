"""Search settings of a bundle: what cannot be searched with is named when the bundle is read, not hours later."""

from __future__ import annotations

import math
from typing import Any

import pytest

from asr_service.decoding.config import DecodingConfig
from asr_service.errors import BundleError


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"accurate": {"beam_size": 20.5}}, r"decoding\.accurate: beam_size is 20\.5, must be a whole number"),
        ({"streaming": {"lm_weight": "x"}}, r"decoding\.streaming: lm_weight is 'x', must be a number"),
        ({"streaming": {"log_add": 1}}, r"decoding\.streaming: log_add is 1, must be true or false"),
        ({"streaming": {"lm_wait": 1}}, r"decoding\.streaming: .*lm_wait"),
        ({"accurate": []}, r"decoding\.accurate: .*must be a table"),
        ({"rescoring": {"neural_lm": math.nan}}, r"decoding\.rescoring: neural_lm is nan, must be finite"),
        ({"rescoring": {"phones": None}}, r"decoding\.rescoring: phones is None, must be a number"),
        ({"lower_phones": 1.5}, r"decoding\.lower_phones is 1\.5, must be 0 to 1"),
        ({"pieces": {"beam_size": 0}}, r"decoding\.pieces: beam_size, .* must be at least 1"),
        ({"joint": {"candidates": 0}}, r"decoding\.joint: beam_size and candidates must be at least 1"),
        ({"joint": {"ctc_weight": 1.1}}, r"decoding\.joint: .*ctc_weight 0 to 1"),
        ({"joint": {"length_reward": -0.1}}, r"decoding\.joint: length_reward, .* must be 0 or more"),
        ({"confidence": {"accurate": {"posterior": "x"}}}, r"decoding\.confidence: accurate\.posterior is 'x'"),
    ],
)
def test_a_setting_that_no_search_has_is_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(BundleError, match=told):
        DecodingConfig.from_dict(settings)


def test_a_whole_number_is_a_number() -> None:
    config = DecodingConfig.from_dict({"rescoring": {"word": -1}, "joint": {"ctc_weight": 1}, "n_best": 7})
    assert (config.rescoring.word, config.joint.ctc_weight, config.n_best) == (-1.0, 1.0, 7)
    assert DecodingConfig.from_dict(config.to_dict()) == config
