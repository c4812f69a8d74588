"""The loop: a resumed run is the run that never stopped, and a bad batch changes nothing."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.training.conftest import Corpus
from training.average import best_paths
from training.checkpoint import latest_checkpoint
from training.loss import losses, target_counts
from training.metrics import read_metrics
from training.precision import DtypeName, compute_dtype
from training.progress import Progress
from training.recipe import LossConfig
from training.sampler import Position
from training.trainer import Loaded, Trainer, _Maker

# What makes the host wait for a GPU.
READS = {torch.Tensor.tolist, torch.Tensor.item, torch.Tensor.__float__, torch.Tensor.__int__, torch.Tensor.__bool__}


def steps(trainer: Trainer, count: int) -> list[dict[str, float]]:
    updates = trainer.updates()
    trainer.model.train()
    return [trainer.step(next(updates)) for _ in range(count)]


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
    second.front_end.mean, second.front_end.std = torch.zeros(16), torch.ones(16)
    second.try_worst_batches()
    assert second.resume()
    losses += steps(second, 3)
    assert losses == expected
    assert second.position == straight.position
    for name, value in straight.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], value, rtol=0, atol=0)
        torch.testing.assert_close(second.average[name], straight.average[name], rtol=0, atol=0)


def test_a_checkpoint_keeps_the_type_that_its_products_had(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    def trainer(dtype: DtypeName) -> Trainer:
        made = corpus.trainer("typed")
        recipe = dataclasses.replace(made.recipe, dtype=dtype)
        return Trainer(recipe, made.model, made.front_end, made.store, made.examples, made.folder, device=made.device)

    found = str(compute_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    trainer("auto").save()
    assert trainer("auto").resume()
    assert "dtype" not in capsys.readouterr().out
    other: DtypeName = "float32" if found == "bfloat16" else "bfloat16"
    assert trainer(other).resume()
    assert f"dtype was '{found}', is '{other}'" in capsys.readouterr().out


def test_the_steps_cover_more_than_one_epoch_and_each_utterance_once_in_each(corpus: Corpus) -> None:
    trainer = corpus.trainer("epochs")
    batches = trainer.batches()
    sizes: dict[int, int] = {}
    for planned, batch in itertools.takewhile(lambda loaded: loaded[0].epoch < 2, batches):
        sizes[planned.epoch] = sizes.get(planned.epoch, 0) + len(batch.lengths)
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
    update = next(trainer.updates())
    trainer.model.train()
    totals = [trainer.step(update)["total"] for _ in range(40)]
    assert totals[-1] < 0.6 * totals[0]


def poisoned(update: list[Loaded]) -> list[Loaded]:
    """The update with NaN in the last batch's features."""
    *others, (planned, batch) = update
    features = batch.features.clone()
    features[0, 0, 0] = float("nan")
    return [*others, (planned, dataclasses.replace(batch, features=features))]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_update_with_nan_changes_no_weight_and_is_counted_and_dumped(corpus: Corpus, accumulate: int) -> None:
    trainer = corpus.trainer(f"nan-{accumulate}", accumulate=accumulate)
    updates = trainer.updates()
    trainer.model.train()
    trainer.step(next(updates))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    average = {name: value.clone() for name, value in trainer.average.items()}
    bad = next(updates)
    trainer.step(poisoned(bad))
    assert trainer.position.skipped == 1
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(trainer.average[name], average[name])
    trainer.step(next(updates))  # and the run goes on
    assert trainer.position.skipped == 1
    assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values())
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    (path,) = (corpus.folder / f"nan-{accumulate}" / "skipped").iterdir()
    dumped = json.loads(path.read_text())["batches"]
    assert [batch["losses"]["total"] == "nan" for batch in dumped] == [False] * (accumulate - 1) + [True]
    last = bad[-1][0]
    assert (dumped[-1]["epoch"], dumped[-1]["batch"]) == (last.epoch, last.number)
    expected = [str(corpus.utterances[corpus.examples[i].index].path) for i in last.indices]
    assert [utterance["path"] for utterance in dumped[-1]["utterances"]] == expected


def test_a_gradient_that_is_not_finite_is_skipped_though_the_loss_is(corpus: Corpus) -> None:
    trainer = corpus.trainer("gradient")
    update = next(trainer.updates())
    trainer.model.train()
    trainer.model.ctc_head.bias.register_hook(lambda gradient: gradient * float("inf"))
    before = trainer.model.ctc_head.weight.clone()
    values = trainer.step(update)
    assert math.isfinite(values["total"])
    assert not math.isfinite(values["norm"])
    assert trainer.position.skipped == 1
    assert torch.equal(trainer.model.ctc_head.weight, before)


def test_too_many_bad_updates_in_a_row_end_the_run_and_good_ones_between_start_the_count_again(corpus: Corpus) -> None:
    trainer = corpus.trainer("diverged", max_skipped=2)
    updates = trainer.updates()
    trainer.model.train()
    for bad in (True, False, True):
        update = next(updates)
        trainer.step(poisoned(update) if bad else update)
    with pytest.raises(RuntimeError, match="2 updates in a row were not finite"):
        trainer.step(poisoned(next(updates)))


def test_an_update_of_two_batches_has_the_gradient_of_both_over_all_their_targets(corpus: Corpus) -> None:
    trainer = corpus.trainer("accumulated", accumulate=2, dropout=0.0)
    trainer.model.train()
    update = next(trainer.updates())
    trainer.gradients(update)
    accumulated = {name: parameter.grad.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.model.zero_grad()
    counts = {
        name: sum(target_counts(batch)[name] for _, batch in update) for name in ("ctc", "attention", "phone_ctc")
    }
    for _, batch in update:
        losses(trainer.model, batch, trainer.recipe.loss, trainer.chunk_mask(), counts)["total"].backward()
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(accumulated[name], parameter.grad, rtol=1e-5, atol=1e-7)


def test_the_largest_batches_are_tried_without_a_trace(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    tried, straight = corpus.trainer("tried"), corpus.trainer("not-tried")
    before = torch.get_rng_state()
    tried.try_worst_batches()
    assert torch.equal(torch.get_rng_state(), before)
    assert "GB" in capsys.readouterr().out
    assert tried.position == Position()
    assert all(parameter.grad is None for parameter in tried.model.parameters())
    assert steps(tried, 2) == steps(straight, 2)


def test_the_largest_batches_are_as_large_as_augmentation_makes_them(corpus: Corpus) -> None:
    trainer = corpus.trainer("largest")
    trainer.recipe = dataclasses.replace(trainer.recipe, augment=dataclasses.replace(trainer.recipe.augment, views=2))
    plain, largest = trainer.maker.maker([7, 8], augmented=False), trainer.maker.largest([7, 8])
    assert largest.features.shape[0] == 2 * plain.features.shape[0]
    assert largest.features.shape[1] == pytest.approx(plain.features.shape[1] / 0.9, abs=2)
    assert trainer.maker.maker.augment is trainer.recipe.augment


@pytest.fixture
def _signals_as_they_were() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals_as_they_were")
def test_a_run_ends_at_its_last_step_with_a_checkpoint(corpus: Corpus) -> None:
    trainer = corpus.trainer("whole")
    trainer.run(dev=[next(corpus.trainer("dev").batches())[1]], evaluate_every=4, save_every_s=1e9)
    path = latest_checkpoint(corpus.folder / "whole")
    assert path is not None
    assert path.name == "step-0000006.pt"
    again = corpus.trainer("whole")
    assert again.resume()
    assert again.position.step == 6
    rows = read_metrics(corpus.folder / "whole")
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if row["kind"] == "dev"] == [4, 6]  # the last weights too
    assert len(best_paths(corpus.folder / "whole")) == 2


@pytest.mark.usefixtures("_signals_as_they_were")
def test_a_run_makes_the_next_batches_before_it_reads_what_the_device_found(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU has the backward pass to do then. It is asked once an update, and no batch is made for nothing."""
    order: list[str] = []

    def told(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def tell(*given: Any, **named: Any) -> Any:
            found = function(*given, **named)
            order.append(name)
            return found

        return tell

    class Reads(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function in READS:
                order.append("read")
            return function(*args, **(kwargs or {}))

    def gradients(update: list[Loaded]) -> Any:
        found = Trainer.gradients(trainer, update)
        order.append("gradients")
        reads.__enter__()
        return found

    def shown(*_: Any) -> None:
        reads.__exit__(None, None, None)
        order.append("shown")

    trainer, reads = corpus.trainer("ahead", accumulate=2, max_steps=3), Reads()
    monkeypatch.setattr(_Maker, "__call__", told("made", _Maker.__call__))
    monkeypatch.setattr(trainer, "gradients", gradients)
    monkeypatch.setattr(trainer.optimizers[0], "step", told("updated", trainer.optimizers[0].step))
    monkeypatch.setattr(trainer, "try_worst_batches", lambda: None)
    monkeypatch.setattr(Progress, "update", shown)
    trainer.run(dev=[], evaluate_every=100, save_every_s=1e9)
    update = ["gradients", "made", "made", "read", "updated", "shown"]
    assert order == ["made", "made", *update, *update, "gradients", "read", "updated", "shown"]


@pytest.mark.usefixtures("_signals_as_they_were")
def test_a_run_is_its_updates_one_by_one_and_so_is_one_that_stopped_with_batches_made_ahead(corpus: Corpus) -> None:
    names = ("total", "norm", "audio_s")
    expected = [
        tuple(float(f"{values[name]:.7g}") for name in names)
        for values in steps(corpus.trainer("one-by-one", accumulate=2), 6)
    ]
    for run, limits in (("ahead-straight", [None]), ("ahead-stopped", [0.0, 0.0, None])):
        for limit in limits:
            trainer = corpus.trainer(run, accumulate=2)
            trainer.resume()
            trainer.run(dev=[], evaluate_every=100, save_every_s=1e9, max_minutes=limit)
        assert [tuple(row[name] for name in names) for row in read_metrics(corpus.folder / run)] == expected


@pytest.mark.usefixtures("_signals_as_they_were")
def test_a_run_with_a_limit_of_time_stops_with_a_checkpoint(corpus: Corpus) -> None:
    trainer = corpus.trainer("limited")
    trainer.run(dev=[], evaluate_every=100, save_every_s=1e9, max_minutes=0.0)
    assert trainer.position.step == 1
    assert corpus.trainer("limited").resume()


@pytest.mark.usefixtures("_signals_as_they_were")
def test_the_limit_is_in_minutes_and_checkpoints_come_by_seconds(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, now = corpus.trainer("timed"), 0.0
    step = trainer.step

    def slow_step(*given: Any) -> dict[str, float]:
        nonlocal now
        now += 25.0
        return step(*given)

    monkeypatch.setattr(trainer, "step", slow_step)
    monkeypatch.setattr("training.trainer.time.monotonic", lambda: now)
    trainer.run(dev=[], evaluate_every=100, save_every_s=30.0, max_minutes=1.0)
    names = sorted(path.name for path in (corpus.folder / "timed").glob("step-*.pt"))
    assert names == ["step-0000002.pt", "step-0000003.pt"]


@pytest.mark.usefixtures("_signals_as_they_were")
def test_a_run_told_to_stop_saves_where_it_is(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = corpus.trainer("stopped")
    step = trainer.step

    def step_then_signal(*given: Any) -> dict[str, float]:
        parts = step(*given)
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
    evaluated = trainer.evaluate([next(corpus.trainer("other").batches())[1]])
    assert set(evaluated) == {"ctc", "attention", "total"}
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert trainer.model.training


def test_a_checkpoint_holds_what_an_export_needs(corpus: Corpus) -> None:
    trainer = corpus.trainer("exported")
    steps(trainer, 1)
    state = torch.load(trainer.save(), weights_only=True)
    assert state["model_config"] == trainer.recipe.model.to_dict()
    assert state["cmvn"]["mean"].shape == (16,)
    assert set(state["average"]) == set(trainer.model.state_dict())


def test_a_weight_for_phones_that_the_model_lacks_is_refused(corpus: Corpus) -> None:
    known = corpus.trainer("phoneless")
    recipe = dataclasses.replace(known.recipe, loss=LossConfig(phone_mmi=0.7))
    given = (recipe, known.model, known.front_end, known.store, known.examples, known.folder)
    with pytest.raises(ValueError, match=r"loss\.phone_mmi is 0\.7, but the model has no phones"):
        Trainer(*given, device=known.device)
