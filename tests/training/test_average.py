"""The best by dev loss are kept, and their mean is what is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asr_service.lexicon import Lexicon
from asr_service.model.bundle import load_bundle
from asr_service.tokenizer import WordPieces
from tests.engine.conftest import make_tiny_bundle
from tests.training.conftest import Corpus
from training.average import best_paths, keep_best, mean_of_averages
from training.checkpoint import latest_checkpoint, save_checkpoint
from training.export import chosen_weights
from training.export import main as export


def state(step: int, loss: float, value: float = 0.0) -> dict[str, object]:
    return {"step": step, "dev": {"total": loss}, "average": {"weight": torch.full((3,), value)}}


def test_those_of_the_lowest_dev_loss_stay_lowest_first(tmp_path: Path) -> None:
    for step, loss in ((100, 3.0), (200, 0.5), (300, 10.0), (400, 1.25)):
        keep_best(tmp_path, state(step, loss), 2)
    assert [path.name for path in best_paths(tmp_path)] == [
        "step-0000200-dev-0.500000.pt",
        "step-0000400-dev-1.250000.pt",
    ]


def test_a_look_that_a_resumed_run_takes_again_is_kept_once(tmp_path: Path) -> None:
    for loss in (2.0, 1.0):
        keep_best(tmp_path, state(100, loss), 5)
    assert [path.name for path in best_paths(tmp_path)] == ["step-0000100-dev-1.000000.pt"]


def test_weights_are_the_mean(tmp_path: Path) -> None:
    for step, value in ((1, 1.0), (2, 4.0), (3, 7.0)):
        keep_best(tmp_path, state(step, float(step), value), 5)
    first, mean = mean_of_averages(best_paths(tmp_path)[:2])
    assert first["step"] == 1
    assert mean["weight"].tolist() == [2.5, 2.5, 2.5]


def test_more_than_there_are_is_refused(tmp_path: Path) -> None:
    keep_best(tmp_path, state(1, 1.0), 5)
    with pytest.raises(ValueError, match=r"--average 2: .* keeps the weights of 1 looks at dev"):
        chosen_weights(tmp_path, 2)
    with pytest.raises(ValueError, match="no checkpoint there"):
        chosen_weights(tmp_path, None)


def test_a_bundle_of_the_best_two_has_their_mean(corpus: Corpus, tmp_path: Path) -> None:
    trainer = corpus.trainer("averaged")
    batch = next(trainer.batches())[1]
    trainer.run(dev=[batch], evaluate_every=2, save_every_s=1e9)
    run = corpus.folder / "averaged"
    corpus.pieces.save(run / "tokenizer.json")
    export(["--run", str(run), "--out", str(tmp_path / "bundle"), "--average", "2"])
    weights = load_bundle(tmp_path / "bundle").model.state_dict()
    states = [torch.load(path, weights_only=True)["average"] for path in best_paths(run)[:2]]
    for name, value in weights.items():
        torch.testing.assert_close(value, (states[0][name] + states[1][name]) / 2, rtol=1e-3, atol=1e-4)


def test_a_bundle_of_two_runs_or_of_a_run_and_a_bundle_has_their_mean(corpus: Corpus, tmp_path: Path) -> None:
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        trainer = corpus.trainer(f"soup{seed}")
        trainer.run(dev=[], evaluate_every=1_000, save_every_s=1e9)
        runs.append(corpus.folder / f"soup{seed}")
        corpus.pieces.save(runs[-1] / "tokenizer.json")
    newest = [latest_checkpoint(run) for run in runs]
    assert newest[0] is not None
    assert newest[1] is not None
    export(["--run", str(runs[0]), "--out", str(tmp_path / "bundle"), "--also", str(newest[1])])
    weights = load_bundle(tmp_path / "bundle").model.state_dict()
    _, mean = mean_of_averages([newest[0], newest[1]])
    for name, value in weights.items():
        torch.testing.assert_close(value, mean[name].to(value.dtype), rtol=1e-3, atol=1e-4)

    alone, both = tmp_path / "alone", tmp_path / "both"
    export(["--run", str(runs[1]), "--out", str(alone)])
    export(["--run", str(runs[0]), "--out", str(both), "--also", str(alone)])
    for name, value in load_bundle(both).model.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-4)

    state = torch.load(newest[1], weights_only=True)
    state["average"].popitem()
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(ValueError, match=r"less\.pt: a model of another shape"):
        mean_of_averages([newest[0], tmp_path / "less.pt"])


def test_weights_of_other_features_or_another_tokenizer_are_refused_by_name(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = corpus.trainer("alike")
    run, other = corpus.folder / "alike", tmp_path / "other"
    trainer.save()
    trainer.front_end.mean = trainer.front_end.mean + 0.01
    trainer.folder = other
    also = trainer.save()
    corpus.pieces.save(run / "tokenizer.json")
    command = ["--run", str(run), "--out", str(tmp_path / "bundle"), "--also", str(also)]
    for pieces, wrong in (
        (corpus.pieces, "mean of its features (CMVN) is up to 0.01 away"),
        (WordPieces.train(["xyzzy zzyzx"] * 9, corpus.pieces.vocab_size), "its tokenizer is not that of"),
    ):
        pieces.save(other / "tokenizer.json")
        with pytest.raises(SystemExit, match="2"):
            export(command)
        error = capsys.readouterr().err
        assert str(also) in error and wrong in error
    assert not (tmp_path / "bundle").exists()


def test_a_run_that_made_its_own_lexicon_is_exported_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = load_bundle(make_tiny_bundle(tmp_path / "tiny"))
    run = tmp_path / "run"
    state = {"step": 1, "average": bundle.model.state_dict(), "model_config": bundle.model.config.to_dict()}
    save_checkpoint(run, state | {"cmvn": {"mean": bundle.front_end.mean, "std": bundle.front_end.std}})
    bundle.pieces.save(run / "tokenizer.json")
    shipped, own = tmp_path / "lexicon.txt.gz", run / "lexicon.txt.gz"
    monkeypatch.setattr("training.export.SHIPPED_LEXICON", shipped)
    for path, word in ((shipped, "shipped"), (own, "own")):
        Lexicon({word: (("B", "AA"),)}).save(path)
    command = ["--run", str(run), "--out", str(tmp_path / "out")]
    export(command)
    assert capsys.readouterr().out.endswith("; no n-gram (lm.kenlm) in it\n")
    assert list(load_bundle(tmp_path / "out").lexicon or ()) == ["own"]
    (tmp_path / "out" / "lm.kenlm").touch()
    own.unlink()
    export(command)
    assert "n-gram" not in capsys.readouterr().out
    assert list(load_bundle(tmp_path / "out").lexicon or ()) == ["shipped"]

    WordPieces.train(["xyzzy zzyzx"] * 9, 35).save(run / "tokenizer.json")
    with pytest.raises(SystemExit, match="2"):  # here, not when the bundle is to be served
        export(command)
    assert "out: tokenizer.json has 35 tokens, the model 40" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_refused_by_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        export(["--run", str(tmp_path / "nope"), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().err == f"export: no run in {tmp_path / 'nope'}\n"
