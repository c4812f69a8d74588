"""Stages: one command trains all of them in their order, each from what the one before gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from asr_service.model.bundle import FORMAT, load_bundle
from training import stages
from training.checkpoint import latest_checkpoint, load_checkpoint
from training.results import RECIPES, make_bundle
from training.spent import spent
from training.stages import main, stage
from training.train import main as train_main

from .command import RECIPE, make_speech

STAGES = {
    "one": "",
    "two": 'extends = "one"\n[start]\nrecipe = "one"\n',
    "three": 'extends = "two"\nseed = 5\n[start]\nrecipe = "two"\ncopies = 2\n[optim]\nmax_steps = 6\n',
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recipes of three stages, the first two of four steps each and the last of six, and noise to learn from."""
    monkeypatch.setenv("ASR_SPEECH_DIR", str(make_speech(tmp_path / "speech")))
    monkeypatch.setattr("training.train.draw_run", lambda _: None)  # most of such a run's time
    first = RECIPE.format(dtype="float32", accumulate=1).replace("max_steps = 40", "max_steps = 4\nema_decay = 0.5")
    for name, text in (STAGES | {"one": first}).items():
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path


def options(folder: Path) -> list[str]:
    return ["--config", str(folder / "three.toml"), "--runs", str(folder / "runs")]


def average(run: Path) -> dict[str, torch.Tensor]:
    newest = latest_checkpoint(run)
    assert newest is not None
    weights: dict[str, torch.Tensor] = load_checkpoint(newest)["average"]
    return weights


def test_each_stage_goes_on_from_what_the_one_before_gives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, begun_with = folder / "runs", []

    def told(arguments: list[str]) -> None:
        begun_with.append(arguments[arguments.index("--init-from") + 1] if "--init-from" in arguments else None)
        train_main(arguments)

    monkeypatch.setattr(stages, "train_main", told)
    main(options(folder))
    assert begun_with == [None, str(runs / "one" / "bundle"), str(runs / "two" / "bundle")]
    assert [load_checkpoint(latest_checkpoint(runs / name) or Path())["step"] for name in STAGES] == [4, 4, 6]
    one, two, three = (load_bundle(runs / name / "bundle").model.state_dict() for name in STAGES)
    learnt = {name: average(runs / name) for name in STAGES}
    for name, weight in three.items():
        torch.testing.assert_close(one[name], learnt["one"][name], rtol=1e-3, atol=1e-5)  # fp16
        torch.testing.assert_close(two[name], learnt["two"][name], rtol=1e-3, atol=1e-5)
        mean = (learnt["three"][name] + 2 * two[name]) / 3
        torch.testing.assert_close(weight, mean, rtol=1e-3, atol=1e-5)

    def trained_again(_: list[str]) -> None:
        raise AssertionError("all of it is finished")

    monkeypatch.setattr(stages, "train_main", trained_again)
    main(options(folder))


def test_a_stage_that_was_interrupted_goes_on_and_those_before_stay_as_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []

    def interrupted(in_stage: str) -> Callable[[list[str]], None]:
        def train(arguments: list[str]) -> None:
            trained.append(Path(arguments[1]).stem)
            train_main([*arguments, *(["--max-minutes", "0"] if trained[-1] == in_stage else [])])

        return train

    monkeypatch.setattr(stages, "train_main", interrupted("two"))
    with pytest.raises(SystemExit, match="2"):
        main(options(folder))
    assert capsys.readouterr().err.endswith(f"stages: {folder}/runs/two was interrupted; the same command goes on\n")
    before = spent(folder / "runs" / "two")
    monkeypatch.setattr(stages, "train_main", interrupted("none"))
    main(options(folder))
    assert trained == ["one", "two", "two", "three"]
    assert spent(folder / "runs" / "two").wall_s > before.wall_s
    whole = stage(folder / "three.toml", options(folder)[2:])
    each = [spent(folder / "runs" / name) for name in STAGES]
    assert whole.spent().wall_s == pytest.approx(sum(of.wall_s for of in each)) and whole.steps == 14


def test_a_limit_of_time_is_the_whole_commands_and_it_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []

    def train(arguments: list[str]) -> None:
        told.append(arguments)
        train_main(arguments)

    monkeypatch.setattr(stages, "train_main", train)
    with pytest.raises(SystemExit, match="2"):
        main([*options(folder), "--max-minutes", "0"])
    assert capsys.readouterr().err.endswith(f"stages: {folder}/runs/one was interrupted; the same command goes on\n")
    main([*options(folder), "--max-minutes", "10"])
    left = [float(arguments[arguments.index("--max-minutes") + 1]) for arguments in told]
    assert left[0] == 0.0
    assert 10.0 >= left[1] > left[2] > left[3] > 5.0
    assert (folder / "runs" / "three" / "bundle").exists()


def test_a_seed_is_that_of_every_stage(folder: Path) -> None:
    last: stages.Stage | None = stage(folder / "three.toml", ["--runs", "r", "--seed", "9"])
    found = []
    while last is not None:
        found.append((last.recipe.seed, last.folder.as_posix()))
        last = last.start
    assert found == [(9, "r/three-seed9"), (9, "r/two-seed9"), (9, "r/one-seed9")]


def test_a_first_stage_of_another_recipe_is_refused_before_the_next_is_trained(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*options(folder)[:1], str(folder / "one.toml"), *options(folder)[2:]])
    (folder / "one.toml").write_text((folder / "one.toml").read_text().replace("lr = 1e-3", "lr = 2e-3"))
    with pytest.raises(SystemExit, match="2"):
        main(options(folder))
    assert "one holds a finished run of another recipe: optim.lr was 0.001, is 0.002" in capsys.readouterr().err
    assert not (folder / "runs" / "two").exists()


@pytest.mark.parametrize(
    ("stages_now", "told"),
    [
        ({"one": '[start]\nrecipe = "three"\n'}, "three.toml: goes on from itself by way of one.toml"),
        ({"one": '[start]\nrecipe = "four"\n'}, "four.toml: No such file"),
        ({"two": "[start]\ncopies = 1\n"}, "two.toml: [start] names no recipe"),
        ({"two": '[start]\nrecipe = "one"\ncopies = -1\n'}, "[start] copies is -1, must be"),
        ({"two": "[start]\nrecipe = 1\n"}, "[start] recipe"),
        (
            {"two": 'extends = "one"\n[start]\nrecipe = "one"\n[model]\nd_model = 32\n'},
            "d_model is 32 in the recipe, 16",
        ),
        ({"two": '[start]\nrecipe = "one"\n[finetune]\n'}, "[start] cannot be in a recipe with [finetune]"),
    ],
)
def test_stages_that_cannot_be_are_refused_before_anything_is_trained(
    folder: Path, capsys: pytest.CaptureFixture[str], stages_now: dict[str, str], told: str
) -> None:
    for name, text in stages_now.items():
        (folder / f"{name}.toml").write_text(text)
    with pytest.raises(SystemExit, match="2"):
        main(options(folder))
    assert told in capsys.readouterr().err and not (folder / "runs").exists()


def test_a_stage_alone_needs_weights_to_begin_with(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        train_main(options(folder))
    assert (
        "three goes on from two: name its weights (--init-from), or train both: python -m training.stages --config"
        in capsys.readouterr().err
    )
    assert not (folder / "runs").exists()


def test_a_bundle_is_like_another_but_for_the_weights(folder: Path) -> None:
    model = folder / "model"
    model.mkdir()
    kept = {"streaming": {"chunk_frames": 8}, "decoding": {"n_best": 7}}
    other = {"format": FORMAT, "name": "it", "language": "en-US", "model": {}, "features": {}}
    (model / "config.json").write_text(json.dumps(other | kept))
    for name in ("letter_to_sound.json.gz", "README.md", "model.safetensors"):
        (model / name).write_text("of the other model")
    with (folder / "one.toml").open("a") as recipe:
        recipe.write(f'[bundle]\nlike = "{model}"\n')
    last = stage(folder / "one.toml", options(folder)[2:])
    last.train()
    bundle = make_bundle(last, [])
    assert (bundle / "letter_to_sound.json.gz").read_text() == "of the other model"
    assert not (bundle / "README.md").exists()
    made = load_bundle(bundle)
    assert (made.name, made.streaming.chunk_frames, made.decoding["n_best"]) == ("one", 8, 7)
    torch.testing.assert_close(made.model.state_dict(), average(last.folder), rtol=1e-3, atol=1e-5)


def test_a_bundle_like_another_has_nothing_else_and_the_other_is_there(folder: Path) -> None:
    recipe = folder / "one.toml"
    for text, told in (
        ('like = "nowhere"', r"one\.toml: \[bundle\] like: nowhere is no bundle"),
        ('like = "nowhere"\nngram_order = 2', "like takes everything from that bundle"),
        ('like = "nowhere"\nlead_frames = 6', "like takes everything from that bundle"),
    ):
        recipe.write_text(f"[bundle]\n{text}\n")
        with pytest.raises(ValueError, match=told):
            stage(recipe, [])


def test_a_model_without_phones_is_like_no_bundle_with_an_n_gram(folder: Path) -> None:
    model = folder / "model"
    model.mkdir()
    for name in ("config.json", "lm.kenlm"):
        (model / name).touch()
    with (folder / "one.toml").open("a") as recipe:
        recipe.write(f'[bundle]\nlike = "{model}"\n')
    with pytest.raises(ValueError, match="no n-gram"):
        stage(folder / "one.toml", options(folder)[2:])


def test_the_shipped_model_is_eight_stages() -> None:
    last: stages.Stage | None = stage(RECIPES / "libri-mini.toml", [])
    names, steps = [], last.steps if last else 0
    while last is not None:
        names.append(last.recipe.name)
        last = last.start
    assert names == ["libri-mini", "seventh", "sixth", "fifth", "fourth", "third", "second", "first"]
    assert steps == 28_900
