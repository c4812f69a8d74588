"""Words that the lexicon lacks, put where the word-piece CTC spells them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from asr_service.engine.interface import StreamOptions
from asr_service.engine.lexicon_search import LexiconSearch
from asr_service.engine.runner import Encoded
from asr_service.engine.search_space import SearchSpace
from asr_service.lexicon import phone_ids
from asr_service.model.transformer import Transformer
from asr_service.types import Mode
from tests.engine.conftest import WORDS


def heard(frames: int, size: int, tokens: dict[int, list[int]]) -> np.ndarray:
    """(T, V) log-probabilities of a path: from these frames on, these tokens with blanks in between."""
    labels = np.zeros(frames, dtype=int)
    for frame, ids in tokens.items():
        labels[frame : frame + 2 * len(ids) : 2] = ids
    log_probs = np.full((frames, size), -12.0, dtype=np.float32)
    log_probs[np.arange(frames), labels] = -0.01
    return log_probs


@pytest.mark.parametrize(("downsample_after", "ratio"), [(2, 2), (None, 1)])
def test_a_spelled_word_takes_the_place_of_what_was_heard_there_whether_or_not_the_encoder_merges_frames(
    tiny_bundle, downsample_after: int | None, ratio: int
) -> None:
    config = dataclasses.replace(tiny_bundle.model.config, downsample_after=downsample_after)
    rescoring = {**tiny_bundle.decoding["rescoring"], "unknown": 0.0, "attention": 0.0, "pieces": 5.0}
    decoding = {**tiny_bundle.decoding, "rescoring": rescoring}
    model = Transformer(config).eval().requires_grad_(False)
    bundle = dataclasses.replace(tiny_bundle, model=model, decoding=decoding)
    search = SearchSpace(bundle).new_search(StreamOptions(Mode.ACCURATE))
    assert isinstance(search, LexiconSearch)
    said = {0: "tick", 20: "baa", 40: "tick"}  # by frames of the phone CTC
    spelled = {0: "tick", 20: "boa", 40: "tick"}
    phones = heard(60, 40, {frame: phone_ids(WORDS[word][0]) for frame, word in said.items()})
    encode = bundle.pieces.encode
    pieces = heard(60 // ratio, bundle.pieces.vocab_size, {at // ratio: encode(word) for at, word in spelled.items()})
    search.step(Encoded(phones, pieces, torch.zeros(len(pieces), config.d_model)))
    assert search.final(offset_s=0.0)[0].text == "tick boa tick"
