"""The training command: what it refuses, it refuses in one line and before hours of work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.training.command import Command, make_speech
from training.train import main


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    speech = make_speech(tmp_path / "speech")
    monkeypatch.setenv("ASR_SPEECH_DIR", str(speech))
    return Command(speech, tmp_path)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    line: str
    *bar, line = capsys.readouterr().err.splitlines()
    assert "Traceback" not in "".join(bar)
    return line


def rewritten(arguments: list[str], old: str, new: str) -> list[str]:
    recipe = Path(arguments[1])
    recipe.write_text(recipe.read_text().replace(old, new))
    return arguments


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("vocab_size = 36", "vocab_size = 5000", "vocab_size is 5000, but .*tokenizer.json has"),
        ("batch_s = 1.6", "batch_s = 1.6\nbatch_sec = 3", "batch_sec: no such setting"),
        ("[data]", '[data]\nmanifest = "nobody.jsonl"', "nobody.jsonl"),
        (
            "phone_vocab_size = 0\n[data]",
            'phone_vocab_size = 40\nphone_layer = 1\n[data]\nlexicon = "lexicon.gz"',
            "lexicon.gz: no such",
        ),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_decoded(
    command: Command, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    line = refused(rewritten(command.arguments("runs"), old, new), capsys)
    assert re.search(said, line), line
    assert line.startswith("train: ")
    assert not (command.folder / "runs" / "pcm").exists()


def test_a_dev_set_of_which_nothing_can_be_looked_at_is_refused(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    dev = command.speech / "dev.jsonl"
    dev.write_text("".join(f"{line}\n" for line in dev.read_text().replace('"text": "', '"text": "7 ').splitlines()))
    assert "none of 6 dev utterances" in refused(command.arguments("runs"), capsys)


def test_nobody_held_out_is_refused(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert "tuning_speakers names nobody" in refused(command.arguments("runs", "--hold-out"), capsys)


def test_what_the_command_line_changes_is_in_the_runs_own_recipe_and_a_run_has_its_own_weights(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command.arguments("runs", "--max-steps", "2", "--batch-seconds", "2.5")
    main(arguments)
    kept = (command.folder / "runs" / "tiny" / "recipe.toml").read_text()
    assert "max_steps = 2\n" in kept
    assert "batch_s = 2.5\n" in kept
    capsys.readouterr()
    main([*arguments, "--init-from", "nowhere"])
    assert "--init-from has no effect" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # of the compiler itself
def test_a_compiled_run_has_the_losses_of_a_plain_one(command: Command) -> None:
    from training.metrics import read_metrics

    curves = []
    for runs, more in (("plain", []), ("compiled", ["--compile"])):
        main(command.arguments(runs, "--max-steps", "3", *more))
        rows = read_metrics(command.folder / runs / "tiny")
        curves.append([row["total"] for row in rows if row["kind"] == "train"])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
