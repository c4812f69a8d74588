"""Silence before every utterance, as a bundle's encoder hears it when it serves."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.training.conftest import Corpus
from training.dataset import BatchMaker
from training.recipe import AugmentConfig
from training.train import dev_batches

PLAIN = AugmentConfig(speeds=(1.0,), freq_masks=0, time_masks=0, views=2)


@pytest.mark.parametrize("augmented", [True, False])
def test_every_utterance_begins_after_the_silence_that_its_recipe_wants(corpus: Corpus, augmented: bool) -> None:
    plain, led = (
        BatchMaker(
            corpus.examples,
            corpus.store,
            corpus.front_end(),
            dataclasses.replace(PLAIN, lead_frames=frames),
            torch.device("cpu"),
        )(range(3), "seed", augmented=augmented)
        for frames in (0, 6)
    )
    torch.testing.assert_close(led.lengths, plain.lengths + 24)
    silence = corpus.front_end().whole(torch.zeros(512 + 23 * 160))
    torch.testing.assert_close(led.features[:, :24], silence.expand(len(led.features), -1, -1))
    torch.testing.assert_close(led.features[:, 24:], plain.features, rtol=0, atol=0)
    assert led.seconds == plain.seconds


def test_a_look_at_dev_hears_that_silence(corpus: Corpus) -> None:
    plain, led = (
        dev_batches(corpus.examples, corpus.store, corpus.front_end(), lead_frames=frames) for frames in (0, 6)
    )
    assert [batch.lengths.tolist() for batch in led] == [(batch.lengths + 24).tolist() for batch in plain]
