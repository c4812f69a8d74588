"""The neural language model learns from passages that are its text; a run that was interrupted goes on as it was."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.hooks import RemovableHandle

from asr_service.model.neural_lm import NeuralLM, NeuralLMConfig, load_neural_lm, save_neural_lm
from asr_service.tokenizer import WordPieces
from training import neural_lm
from training.checkpoint import load_newest, save_checkpoint
from training.neural_lm import Run, perplexity, summed_loss, tokenised
from training.recipe import OptimConfig
from training.tokenizer import train as train_tokenizer

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
COUNTING = [" ".join(NUMBERS[first : first + 4]) for first in range(7)] * 12
PIECES = train_tokenizer(COUNTING, 48)
BACKWARDS = train_tokenizer([line[::-1] for line in COUNTING], 48)
SHAPE = NeuralLMConfig(PIECES.vocab_size, 32, 2, 64, 2)
OPTIM = OptimConfig(lr=1e-2, warmup_steps=5, max_steps=60, decay_fraction=0.5, clip_norm=1.0)


def put_texts(folder: Path) -> None:
    PIECES.save(folder / "tokenizer.json")
    (folder / "text").write_text("\n".join(COUNTING))


def test_perplexity_is_that_of_a_word_with_sentence_ends_as_words() -> None:
    model = NeuralLM(SHAPE)
    torch.nn.init.zeros_(model.embedding.weight)  # every token is as likely as any other
    tokens = len(PIECES.encode("one two")) + 1
    assert perplexity(model, PIECES, ["one two"]) == pytest.approx(PIECES.vocab_size ** (tokens / 3), rel=1e-4)


def test_a_run_learns_what_follows_what(tmp_path: Path) -> None:
    run = Run(tokenised(COUNTING, PIECES), SHAPE, OPTIM, tmp_path, seed=1, batch_tokens=512)
    told = [" ".join(COUNTING[:12])]
    before = perplexity(run.model, PIECES, told)
    run.train()
    after = perplexity(run.model, PIECES, told)
    assert after < 6 < 50 < before, "but for the first of four numbers there is little to guess"
    assert perplexity(run.model, PIECES, [" ".join(reversed(told[0].split()))]) > 10 * after, (
        "said backwards it is news"
    )


def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tokenised(COUNTING, PIECES)
    whole = Run(text, SHAPE, OPTIM, tmp_path / "whole", seed=1, batch_tokens=512)
    whole.train()
    stopped = Run(text, SHAPE, OPTIM, tmp_path / "stopped", seed=1, batch_tokens=512)
    monkeypatch.setattr(neural_lm, "SAVE_EVERY_S", 0.0)
    original, updates = Run.update, []

    def update(self: Run, rows: list) -> tuple[float, int]:
        if len(updates) == 25:
            raise KeyboardInterrupt
        updates.append(self.step)
        return original(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "update", update)
        with pytest.raises(KeyboardInterrupt):
            stopped.train()
    resumed = Run(text, SHAPE, OPTIM, tmp_path / "stopped", seed=1, batch_tokens=512)
    resumed.resume()
    assert resumed.step == 25
    resumed.train()
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, atol=1e-5, rtol=0)


def test_a_run_of_another_shape_is_not_resumed(tmp_path: Path) -> None:
    text = tokenised(COUNTING, PIECES)
    Run(text, SHAPE, OPTIM, tmp_path, seed=1, batch_tokens=512).save()
    with pytest.raises(ValueError, match=rf"{tmp_path} has another model, .*: layers was 2, is 3$"):
        Run(text, NeuralLMConfig(PIECES.vocab_size, 32, 2, 64, 3), OPTIM, tmp_path, seed=1, batch_tokens=512).resume()


@pytest.mark.parametrize(
    ("sentences", "pieces", "seed", "batch_tokens", "named"),
    [
        (COUNTING, PIECES, 2, 512, "seed was 1, is 2$"),
        (COUNTING, PIECES, 1, 256, "batch_tokens was 512, is 256$"),
        (COUNTING[:-1], PIECES, 1, 512, "SHA-256 of the text was '[0-9a-f]{64}', is '[0-9a-f]{64}'$"),
        (["ten nine", "eight seven"], PIECES, 1, 512, "SHA-256 of the text was"),
        (COUNTING, BACKWARDS, 1, 512, "SHA-256 of the word pieces was '[0-9a-f]{64}'"),
    ],
)
def test_a_run_of_other_words_or_another_order_is_not_resumed(
    tmp_path: Path, sentences: list[str], pieces: WordPieces, seed: int, batch_tokens: int, named: str
) -> None:
    Run(tokenised(COUNTING, PIECES), SHAPE, OPTIM, tmp_path, seed=1, batch_tokens=512).save()
    other = Run(tokenised(sentences, pieces), SHAPE, OPTIM, tmp_path, seed=seed, batch_tokens=batch_tokens)
    with pytest.raises(ValueError, match=rf"{tmp_path} holds another run, .*: {named}"):
        other.resume()


def test_a_checkpoint_that_does_not_say_what_it_has_read_is_gone_on_from_and_that_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tokenised(COUNTING, PIECES), SHAPE, OPTIM, tmp_path, seed=1, batch_tokens=512)
    run.save()
    state = load_newest(tmp_path)
    assert state is not None
    del state["run"]
    save_checkpoint(tmp_path, state)
    assert run.resume()
    assert "does not say what text and seed it is of" in capsys.readouterr().out
    run.save()
    assert run.resume()
    assert "does not say what text and seed it is of" not in capsys.readouterr().out


def broken(run: Run) -> RemovableHandle:
    """From now on its gradients are not finite."""
    return run.model.final_norm.weight.register_hook(lambda gradient: gradient * float("nan"))


def test_an_update_that_is_not_finite_changes_no_weight_and_the_next_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tokenised(COUNTING, PIECES), SHAPE, OPTIM, tmp_path, seed=1, batch_tokens=512)
    rows = [np.array(PIECES.encode("one two"), dtype=np.uint16)]
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    hook = broken(run)
    run.update(rows)
    assert "step 1: loss or gradient not finite, skipped" in capsys.readouterr().out
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    hook.remove()
    run.update(rows)
    assert run.step == 2
    assert all(torch.isfinite(value).all() for value in run.model.state_dict().values())
    assert any(not torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


def test_a_run_ends_after_some_updates_in_a_row_that_are_not_finite_and_its_checkpoints_stay(tmp_path: Path) -> None:
    optim = dataclasses.replace(OPTIM, max_skipped=3)
    run = Run(tokenised(COUNTING, PIECES), SHAPE, optim, tmp_path, seed=1, batch_tokens=512)
    run.save()
    broken(run)
    with pytest.raises(RuntimeError, match="3 updates in a row were not finite, the last one step 3"):
        run.train()
    assert [path.name for path in tmp_path.glob("*.pt")] == ["step-0000000.pt"]


def test_tokens_go_where_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = NeuralLM(SHAPE).to("meta")
    monkeypatch.setattr(model, "forward", lambda ids: torch.zeros(*ids.shape, SHAPE.vocab_size, device=ids.device))
    loss, count = summed_loss(model, [np.array([7, 8], dtype=np.uint16)])
    assert (loss.device.type, count) == ("meta", 3)


@pytest.mark.gpu
def test_a_run_on_a_gpu_learns_what_one_on_the_cpu_does(tmp_path: Path) -> None:
    """And either goes on from the other's checkpoint."""
    text, told, found = tokenised(COUNTING, PIECES), [" ".join(COUNTING[:12])], []
    for device in ("cpu", "cuda"):
        run = Run(text, SHAPE, OPTIM, tmp_path / device, seed=1, batch_tokens=512, device=torch.device(device))
        run.train()
        found.append(perplexity(run.model, PIECES, told))
    assert found[0] == pytest.approx(found[1], rel=0.3)
    assert Run(text, SHAPE, OPTIM, tmp_path / "cuda", seed=1, batch_tokens=512).resume()
    further = dataclasses.replace(OPTIM, max_steps=62)
    run = Run(text, SHAPE, further, tmp_path / "cpu", seed=1, batch_tokens=512, device=torch.device("cuda"))
    assert run.resume()
    run.train()


def test_a_run_starts_from_a_bundles_weights_if_they_are_its_own_shape(tmp_path: Path) -> None:
    text = tokenised(COUNTING, PIECES)
    first = Run(text, SHAPE, OPTIM, tmp_path / "first", seed=1, batch_tokens=512)
    save_neural_lm(tmp_path, first.model, PIECES)
    run = Run(text, SHAPE, OPTIM, tmp_path / "second", seed=2, batch_tokens=512)
    run.move_to(run.weights_of(tmp_path, PIECES))
    for name, value in first.model.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], value, atol=1e-3, rtol=1e-3)  # fp16
    for other in ({"layers": 1}, {"ffn_dim": 32}):
        shape = dataclasses.replace(SHAPE, **other)
        with pytest.raises(ValueError, match="another shape"):
            Run(text, shape, OPTIM, tmp_path / "third", seed=1, batch_tokens=512).weights_of(tmp_path, PIECES)
    with pytest.raises(ValueError, match="other word pieces"):
        run.weights_of(tmp_path, BACKWARDS)
    with pytest.raises(ValueError, match="no neural language model"):
        run.weights_of(tmp_path / "second", PIECES)


def test_a_deeper_model_begins_with_what_the_bundles_predicts_and_learns_with_all_its_layers(tmp_path: Path) -> None:
    text = tokenised(COUNTING, PIECES)
    first = Run(text, SHAPE, OPTIM, tmp_path / "first", seed=1, batch_tokens=512)
    save_neural_lm(tmp_path, first.model, PIECES)
    deeper = dataclasses.replace(SHAPE, layers=4)
    run = Run(text, deeper, OPTIM, tmp_path / "second", seed=2, batch_tokens=512)
    before = run.weights_of(tmp_path, PIECES)
    run.move_to(before)
    rows = torch.arange(12).view(1, 12)
    torch.testing.assert_close(run.model(rows), first.model(rows), atol=2e-2, rtol=2e-2)  # the file is in fp16
    run.train()
    learnt = {name: value.clone() for name, value in run.model.state_dict().items()}
    newest = [name for name in learnt if name.startswith("blocks.3.") and "out_proj.bias" not in name]
    assert all(float(learnt[name].abs().max()) > 1e-3 for name in newest)
    run.move_to(before, 0.25)
    for name, value in run.model.state_dict().items():
        began = before.get(name, learnt[name])  # a new block adds a quarter less, with the weights that it has
        torch.testing.assert_close(value, 0.25 * began + 0.75 * learnt[name])


@pytest.mark.parametrize("sentences", [[], [""]])
def test_no_text_is_an_error(sentences: list[str]) -> None:
    with pytest.raises(ValueError, match="no text"):
        tokenised(sentences, PIECES)


def test_the_command_writes_what_a_bundle_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_texts(tmp_path)
    (tmp_path / "dev.jsonl").write_text(json.dumps({"text": "ONE TWO THREE", "corpus": "counted"}) + "\n")
    shape = ["--d-model", "32", "--n-heads", "2", "--ffn-dim", "64", "--layers", "1", "--steps", "8"]
    paths = ["--text", "text", "--tokenizer", "tokenizer.json", "--run", "run", "--out", "out", "--dev", "dev.jsonl"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["neural_lm", *paths, *shape])
    neural_lm.main()
    found = load_neural_lm(tmp_path / "out")
    assert found is not None and found[0].config.layers == 1
    printed = capsys.readouterr().out
    assert f"dev perplexity {perplexity(*found, ['one two three']):.0f}"[:16] in printed and "resumed" not in printed
    monkeypatch.setattr("sys.argv", ["neural_lm", *paths, *shape, "--init-from", "nowhere"])
    neural_lm.main()
    assert "resumed at step 8; its weights are the checkpoint's, not --init-from's" in capsys.readouterr().out


def test_a_share_of_weights_that_are_not_there_is_refused_before_anything_is_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_texts(tmp_path)
    shape = ["--d-model", "32", "--n-heads", "2", "--ffn-dim", "64", "--layers", "1"]
    paths = ["--text", "text", "--tokenizer", "tokenizer.json", "--run", "run", "--out", "out"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["neural_lm", *paths, *shape, "--steps", "2"])
    neural_lm.main()
    more = ["--steps", "4", "--init-from", "nowhere", "--init-share", "0.3"]
    monkeypatch.setattr("sys.argv", ["neural_lm", *paths, *shape, *more])
    with pytest.raises(SystemExit, match="2"):
        neural_lm.main()
    assert "nowhere has no neural language model" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").glob("step-*.pt")] == ["step-0000002.pt"]


def test_a_share_of_the_weights_that_a_run_began_with_goes_into_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_texts(tmp_path)
    monkeypatch.chdir(tmp_path)

    def written(out: str, *options: str) -> dict[str, torch.Tensor]:
        shape = ["--d-model", "32", "--n-heads", "2", "--ffn-dim", "64", "--layers", "1"]
        paths = ["--text", "text", "--tokenizer", "tokenizer.json", "--out", out, "--steps", "8", "--lr", "0.1"]
        monkeypatch.setattr("sys.argv", ["neural_lm", *paths, *shape, *options])
        neural_lm.main()
        found = load_neural_lm(tmp_path / out)
        assert found is not None
        return found[0].state_dict()

    before = written("before", "--run", "first")
    learnt = written("learnt", "--run", "second", "--init-from", "before", "--seed", "2")
    mean = written("mean", "--run", "second", "--init-from", "before", "--seed", "2", "--init-share", "0.25")
    for name, weight in mean.items():
        torch.testing.assert_close(weight, 0.25 * before[name] + 0.75 * learnt[name], rtol=1e-3, atol=5e-4)  # in fp16
    for other in (before, learnt):
        assert float((mean["embedding.weight"] - other["embedding.weight"]).abs().max()) > 2e-3


def test_a_tokenizer_of_texts_by_other_rules_is_refused_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_texts(tmp_path)
    train_tokenizer([line.upper() for line in COUNTING], 48, normalizer="nfc").save(tmp_path / "tokenizer.json")
    paths = ["--text", "text", "--tokenizer", "tokenizer.json", "--run", "run", "--out", "out", "--steps", "1"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["neural_lm", *paths])
    with pytest.raises(SystemExit, match="2"):
        neural_lm.main()
    told = capsys.readouterr().err
    assert "neural_lm: tokenizer.json: a tokenizer of texts by " in told and "'nfc'" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--init-share", "0.3"], "--init-share is a share of --init-from"), (["--init-share", "nan"], "must be 0 to 1")],
)
def test_a_share_of_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    paths = ["--text", "text", "--tokenizer", "tokenizer.json", "--run", "run", "--out", "out"]
    monkeypatch.setattr("sys.argv", ["neural_lm", *paths, *options])
    with pytest.raises(SystemExit, match="2"):
        neural_lm.main()
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--device", "gpu"), ("--steps", "0"), ("--batch-tokens", "0")])
def test_an_option_that_cannot_be_meant_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    paths = ["--text", "text", "--tokenizer", "tokenizer.json", "--run", "run", "--out", "out"]
    monkeypatch.setattr("sys.argv", ["neural_lm", *paths, option, value])
    with pytest.raises(SystemExit, match="2"):
        neural_lm.main()
    assert f"argument {option}: must be" in capsys.readouterr().err


def test_a_run_that_is_further_than_it_is_to_go_is_refused(tmp_path: Path) -> None:
    run = Run(tokenised(COUNTING, PIECES), SHAPE, OPTIM, tmp_path, seed=1, batch_tokens=512)
    run.step = 61
    with pytest.raises(ValueError, match=r"--steps is 60, but .* is at step 61 already"):
        run.train()


def test_a_dev_set_without_a_text_is_refused_before_anything_is_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_texts(tmp_path)
    (tmp_path / "dev.jsonl").write_text('{"audio_filepath": "a", "text": "one", "corpus": "own"}\n')
    options = {"text": "text", "tokenizer": "tokenizer.json", "run": "run", "out": "out", "dev": "dev.jsonl"}
    command = [word for name, value in options.items() for word in (f"--{name}", str(tmp_path / value))]
    monkeypatch.setattr("sys.argv", ["neural_lm", *command, "--dev-corpus", "owm"])
    with pytest.raises(SystemExit, match="2"):
        neural_lm.main()
    assert "dev.jsonl: no text of a corpus that begins with 'owm'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_update_has_its_rate_and_norm_and_a_tokens_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optim = dataclasses.replace(OPTIM, warmup_steps=2, max_steps=4, clip_norm=0.01)
    run = Run(tokenised(COUNTING, PIECES), SHAPE, optim, tmp_path, seed=1, batch_tokens=512)
    rows, norms, rates = [np.array(PIECES.encode("one two"), dtype=np.uint16)] * 3, [], []

    def updated(optimizer: torch.optim.Optimizer) -> None:
        norms.append(float(torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None]).norm()))
        rates.extend(group["lr"] for group in optimizer.param_groups)

    for optimizer in run.optimizers:
        monkeypatch.setattr(optimizer, "step", lambda optimizer=optimizer: updated(optimizer))
    total, tokens = summed_loss(run.model, rows)
    loss, count = run.update(rows)
    assert (loss, count) == (pytest.approx(float(total.detach()) / tokens, rel=0.02), tokens)
    for _ in range(3):
        run.update(rows)
    assert norms[::2] == pytest.approx([0.01] * 4, rel=1e-3)
    assert rates == pytest.approx([*[0.005] * 3, *[0.01] * 6, *[0.005] * 3])


def test_the_run_is_what_the_command_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_texts(tmp_path)
    runs: list[Run] = []
    monkeypatch.setattr(Run, "train", lambda run: runs.append(run))
    monkeypatch.chdir(tmp_path)
    shape = {"d-model": 32, "n-heads": 2, "ffn-dim": 48, "layers": 3}
    paths = {"text": "text", "tokenizer": "tokenizer.json", "run": "run", "out": "out"}
    options = shape | paths | {"steps": 9, "batch-tokens": 77, "lr": 0.02, "seed": 5}
    command = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr("sys.argv", ["neural_lm", *command])
    neural_lm.main()
    (run,) = runs
    assert run.model.config == NeuralLMConfig(PIECES.vocab_size, *shape.values())
    assert (run.optim.max_steps, run.optim.lr, run.batch_tokens, run.seed) == (9, 0.02, 77, 5)
