"""The loop: a resumed run is the run that never stopped, and a bad batch changes nothing."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.conftest import Corpus
from training.checkpoint import latest_checkpoint
from training.loss import Batch
from training.trainer import Trainer


def steps(trainer: Trainer, count: int) -> list[dict[str, float]]:
    batches = trainer.batches()
    trainer.model.train()
    return [trainer.step(next(batches)) for _ in range(count)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_three_steps_and_three_resumed_are_six_steps(corpus: Corpus, optimizer: str) -> None:
    straight = corpus.trainer(f"straight-{optimizer}", optimizer=optimizer)
    expected = steps(straight, 6)
    first = corpus.trainer(f"resumed-{optimizer}", optimizer=optimizer)
    losses = steps(first, 3)
    first.save()
    second = corpus.trainer(f"resumed-{optimizer}", optimizer=optimizer, seed=1)
    with torch.no_grad():
        for parameter in second.model.parameters():
            parameter.zero_()  # nothing but the checkpoint may be what it goes on from
    assert second.resume()
    losses += steps(second, 3)
    assert losses == expected
    assert second.position == straight.position
    for name, value in straight.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], value, rtol=0, atol=0)
        torch.testing.assert_close(second.average[name], straight.average[name], rtol=0, atol=0)


def test_the_steps_cover_more_than_one_epoch_and_each_utterance_once_in_each(corpus: Corpus) -> None:
    trainer = corpus.trainer("epochs")
    batches = trainer.batches()
    sizes: dict[int, int] = {}
    while trainer.position.epoch < 2:
        batch = next(batches)
        sizes[trainer.position.epoch] = sizes.get(trainer.position.epoch, 0) + len(batch.lengths)
    assert sizes[0] == sizes[1] == len(corpus.examples)


def test_a_run_without_checkpoints_starts_afresh(corpus: Corpus) -> None:
    trainer = corpus.trainer("empty")
    assert not trainer.resume()
    assert trainer.position.step == 0


def test_the_loss_falls_on_a_batch_seen_again_and_again(corpus: Corpus) -> None:
    trainer = corpus.trainer("overfit")
    trainer.recipe = dataclasses.replace(
        trainer.recipe, optim=dataclasses.replace(trainer.recipe.optim, lr=5e-3, max_steps=60)
    )
    batch = next(trainer.batches())
    trainer.model.train()
    totals = [trainer.step(batch)["total"] for _ in range(40)]
    assert totals[-1] < 0.6 * totals[0]


def poisoned(batch: Batch) -> Batch:
    features = batch.features.clone()
    features[0, 0, 0] = float("nan")
    return dataclasses.replace(batch, features=features)


def test_a_batch_with_nan_changes_no_weight_and_is_counted(corpus: Corpus) -> None:
    trainer = corpus.trainer("nan")
    batches = trainer.batches()
    trainer.model.train()
    trainer.step(next(batches))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    average = {name: value.clone() for name, value in trainer.average.items()}
    trainer.step(poisoned(next(batches)))
    assert trainer.skipped_steps == 1
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(trainer.average[name], average[name])
    trainer.step(next(batches))  # and the run goes on
    assert trainer.skipped_steps == 1
    assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values())
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


@pytest.fixture
def _signals_as_they_were() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals_as_they_were")
def test_a_run_ends_at_its_last_step_with_a_checkpoint(corpus: Corpus) -> None:
    trainer = corpus.trainer("whole")
    trainer.run(dev=[next(corpus.trainer("dev").batches())], evaluate_every=3, save_every_s=1e9)
    path = latest_checkpoint(corpus.folder / "whole")
    assert path is not None
    assert path.name == "step-0000006.pt"
    again = corpus.trainer("whole")
    assert again.resume()
    assert again.position.step == 6


@pytest.mark.usefixtures("_signals_as_they_were")
def test_a_run_told_to_stop_saves_where_it_is(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = corpus.trainer("stopped")
    step = trainer.step

    def step_then_signal(batch: Batch) -> dict[str, float]:
        parts = step(batch)
        if trainer.position.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return parts

    monkeypatch.setattr(trainer, "step", step_then_signal)
    trainer.run(dev=[], evaluate_every=100, save_every_s=1e9)
    path = latest_checkpoint(corpus.folder / "stopped")
    assert path is not None
    assert path.name == "step-0000002.pt"


def test_evaluation_leaves_the_weights_as_they_were(corpus: Corpus) -> None:
    trainer = corpus.trainer("evaluated")
    steps(trainer, 2)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    shown = trainer.evaluate([next(corpus.trainer("other").batches())])
    assert "total=" in shown
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert trainer.model.training


def test_a_checkpoint_holds_what_an_export_needs(corpus: Corpus) -> None:
    trainer = corpus.trainer("exported")
    steps(trainer, 1)
    state = torch.load(trainer.save(), weights_only=True)
    assert state["model_config"] == trainer.recipe.model.to_dict()
    assert state["cmvn"]["mean"].shape == (16,)
    assert set(state["average"]) == set(trainer.model.state_dict())


def test_the_folder_of_a_run_is_where_its_checkpoints_are(corpus: Corpus) -> None:
    trainer = corpus.trainer("folder")
    assert trainer.save().parent == Path(corpus.folder / "folder")
