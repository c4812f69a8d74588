"""What one update draws, and what it makes of weights, average and position."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from asr_service.model.encoder import ChunkMask
from tests.training.conftest import Corpus
from training.loss import Batch, losses
from training.sampler import PlannedBatch, Position, plan
from training.trainer import Loaded, Trainer


def differs(one: Batch, other: Batch) -> bool:
    return one.features.shape != other.features.shape or not torch.equal(one.features, other.features)


def test_augmentation_begins_with_its_first_step_and_is_drawn_anew_for_each_seed_epoch_and_batch(
    corpus: Corpus,
) -> None:
    make, plain = corpus.trainer("drawn").maker, corpus.trainer("plain").maker.maker([0, 1, 2], augmented=False)
    planned = PlannedBatch(1, 0, 0, 0, (0, 1, 2), after=(0, 1))
    assert not differs(make(dataclasses.replace(planned, step=0)), plain)
    drawn = [make(planned), make(dataclasses.replace(planned, epoch=1)), make(dataclasses.replace(planned, number=1))]
    drawn.append(dataclasses.replace(make, seed=2)(planned))
    assert all(differs(one, other) for one, other in itertools.combinations([plain, *drawn], 2))
    assert not differs(make(planned), drawn[0])


def test_dropout_is_drawn_anew_for_each_batch_of_each_update(corpus: Corpus) -> None:
    trainer = corpus.trainer("dropout", dropout=0.3)
    planned, batch = next(trainer.batches())
    totals = []
    for step, slot in ((0, 0), (0, 0), (1, 0), (0, 1)):
        ((values,), names) = trainer.gradients([(dataclasses.replace(planned, step=step, slot=slot), batch)])
        totals.append(float(values[names.index("total")]))
    assert totals[0] == totals[1]
    assert len(set(totals)) == 3


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_chunks_are_their_share_of_the_updates_from_their_first_step_on(corpus: Corpus, share: float) -> None:
    trainer = corpus.trainer("chunks")
    augment = dataclasses.replace(trainer.recipe.augment, chunk_start_step=3, chunk_probability=share)
    trainer.recipe = dataclasses.replace(trainer.recipe, augment=augment)
    masks = []
    for trainer.position.step in range(403):
        masks.append(trainer.chunk_mask())
    assert masks[:3] == [None] * 3
    drawn = [mask for mask in masks[3:] if mask is not None]
    assert len(drawn) / 400 == pytest.approx(share, abs=0.06 if 0 < share < 1 else 0)
    assert set(drawn) == ({ChunkMask(2, 8), ChunkMask(4, 8)} if share else set())


def test_the_first_epochs_alone_begin_with_the_shortest_utterances(corpus: Corpus) -> None:
    known = corpus.trainer("short").recipe
    recipe = dataclasses.replace(known, data=dataclasses.replace(known.data, batch_s=3.0, short_first_epochs=2))
    durations = [example.duration_s for example in corpus.examples]
    longest: dict[int, list[float]] = {}
    for planned in itertools.takewhile(lambda planned: planned.epoch < 4, plan(durations, recipe, Position())):
        longest.setdefault(planned.epoch, []).append(max(durations[index] for index in planned.indices))
    assert [batches == sorted(batches) for batches in longest.values()] == [True, True, False, False]


def test_a_loss_that_is_not_finite_is_skipped_though_the_gradient_is(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = corpus.trainer("loss")
    before = trainer.model.ctc_head.weight.clone()

    def gradients(update: list[Loaded]) -> tuple[list[torch.Tensor], list[str]]:
        values, names = Trainer.gradients(trainer, update)
        return [value * math.inf for value in values], names

    monkeypatch.setattr(trainer, "gradients", gradients)
    assert math.isfinite(trainer.step(next(trainer.updates()))["norm"])
    assert trainer.position.skipped == 1
    assert torch.equal(trainer.model.ctc_head.weight, before)


def test_a_gradient_is_cut_to_the_norm_of_the_recipe_and_told_as_it_was(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, norms = corpus.trainer("clipped", clip_norm=0.01), []

    def step() -> None:
        norms.append(float(torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()]).norm()))

    monkeypatch.setattr(trainer.optimizers[0], "step", step)
    told = trainer.step(next(trainer.updates()))["norm"]
    assert norms == [pytest.approx(0.01, rel=1e-3)]
    assert told > 0.1


def test_the_average_forgets_the_start_and_then_moves_by_its_decay(corpus: Corpus) -> None:
    trainer = corpus.trainer("average", ema_decay=0.3, lr=0.1)
    expected = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    updates = trainer.updates()
    for decay in (1 / 10, 2 / 11, 3 / 12, 0.3, 0.3):
        trainer.step(next(updates))
        for name, value in trainer.model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
            torch.testing.assert_close(trainer.average[name], expected[name])


def test_the_audio_heard_is_that_of_all_updates(corpus: Corpus) -> None:
    trainer = corpus.trainer("heard", accumulate=2)
    updates, heard_s = trainer.updates(), 0.0
    for _ in range(3):
        update = next(updates)
        heard_s += sum(batch.seconds for _, batch in update)
        trainer.step(update)
        assert trainer.position.audio_s == pytest.approx(heard_s)


def test_the_learning_rate_is_that_of_the_updates_made_before(corpus: Corpus) -> None:
    trainer = corpus.trainer("rate", warmup_steps=4, max_steps=8)
    updates, rates = trainer.updates(), []
    for _ in range(8):
        told = trainer.step(next(updates))["lr"]
        assert {group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups} == {told}
        rates.append(told / 1e-3)
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 0.5])


def test_dev_is_looked_at_with_the_averaged_weights_and_without_dropout(corpus: Corpus) -> None:
    trainer = corpus.trainer("dev", lr=0.1, dropout=0.3)
    updates = trainer.updates()
    for _ in range(2):
        trainer.step(next(updates))
    batches = [trainer.maker.maker(indices, augmented=False) for indices in ([0, 1], [2, 3, 4])]
    found = trainer.evaluate(batches)
    other = corpus.trainer("averaged", dropout=0.3).model.eval()
    other.load_state_dict(trainer.average)
    together = trainer.maker.maker(range(5), augmented=False)
    with torch.no_grad():
        expected = losses(other, together, trainer.recipe.loss, None)
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-4)
