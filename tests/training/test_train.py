"""The training command: what it refuses, it refuses in one line and before hours of work."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import torch

from asr_service.lexicon import Lexicon
from asr_service.model.bundle import TOKENIZER_FILE
from asr_service.tokenizer import WordPieces
from tests.training.command import WORDS, Command, make_speech
from training.curves import draw_run
from training.lexicon import LEXICON_FILE
from training.recipe import DataConfig, Recipe
from training.tokenizer import train as train_tokenizer
from training.train import main, targets
from training.trainer import Trainer


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


def rows_changed(manifest: Path, change: Callable[[int, dict[str, Any]], dict[str, Any]]) -> None:
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps({**row, **change(n, row)}) + "\n" for n, row in enumerate(rows)))


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


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--evaluate-every", "0"),
        ("--threads", "0"),
        ("--device", "gpu"),
        ("--device", "cuda"),
        ("--device", "meta"),
        ("--save-minutes", "nan"),
        ("--save-minutes", "-1"),
        ("--max-minutes", "nan"),
    ],
)
def test_an_option_that_cannot_be_meant_is_named_before_anything_is_made(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str, value: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = refused(command.arguments("runs", "--max-steps", "1", option, value), capsys)
    assert f"argument {option}: " in line and value.strip("-") in line
    assert not (command.folder / "runs").exists()


def test_nobody_held_out_is_refused(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command.arguments("runs", "--hold-out")
    assert "tuning_speakers names nobody" in refused(arguments, capsys)
    told = "[data] tuning_speakers has ann, bob, of whom nothing is in train.jsonl"
    assert told in refused(rewritten(arguments, "[data]", '[data]\ntuning_speakers = ["ann", "1", "bob"]'), capsys)


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


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_a_signal_ended_says_so_to_what_comes_next_and_a_part_of_a_run_does_not(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    step, told = Trainer.step, "interrupted; the same command goes on from here\n"

    def step_then_signal(trainer: Trainer, *given: Any) -> dict[str, float]:
        signal.raise_signal(sent)
        return step(trainer, *given)

    arguments = command.arguments("runs", "--max-steps", "3")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", step_then_signal)
        assert main(arguments) == 130
    assert capsys.readouterr().out.endswith(told)
    assert main([*arguments, "--max-minutes", "0"]) == 0
    assert main(arguments) == 0
    assert told not in capsys.readouterr().out
    assert (command.folder / "runs" / "tiny" / "step-0000003.pt").exists()


def with_own_lexicon(arguments: list[str]) -> list[str]:
    """The recipe with phones, out of a lexicon that is made of the training texts."""
    rewritten(arguments, "phone_vocab_size = 0", "phone_layer = 1")
    return rewritten(arguments, "[data]", '[data]\nlexicon = ""')


def test_a_start_that_was_refused_leaves_no_targets_of_texts_that_were_corrected_since(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = with_own_lexicon(command.arguments("runs", "--max-steps", "1"))
    dev = command.speech / "dev.jsonl"
    as_it_was = dev.read_text()
    rows_changed(dev, lambda *_: {"text": "route 66"})
    assert "none of 6 dev utterances" in refused(arguments, capsys)
    dev.write_text(as_it_was)
    rows_changed(command.speech / "train.jsonl", lambda n, row: {"text": "open the window" if n % 2 else row["text"]})
    main(arguments)
    printed = capsys.readouterr().out
    assert "36 utterances" in printed and "no pronunciation" not in printed.split("dev: ")[0]


RECIPE = Recipe("tiny", data=DataConfig(lexicon=""))


@pytest.fixture
def _no_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    """To read it takes seconds."""
    monkeypatch.setattr(
        "training.train.own_lexicon", lambda texts: Lexicon(dict.fromkeys(" ".join(texts).split(), (("S",),)))
    )


def made(folder: Path, texts: list[str], *, given: bool = False) -> tuple[tuple[str, ...], bool]:
    """The pieces that a start takes, and whether its lexicon has "window"."""
    vocab_size = WordPieces.load(folder / TOKENIZER_FILE).vocab_size if (folder / TOKENIZER_FILE).exists() else 36
    recipe = dataclasses.replace(RECIPE, model=dataclasses.replace(RECIPE.model, vocab_size=vocab_size))
    pieces, lexicon = targets(recipe, folder, texts, given=given)
    assert lexicon is not None
    return pieces.pieces, "window" in lexicon


@pytest.mark.usefixtures("_no_dictionary")
def test_targets_are_made_anew_of_other_texts_until_the_run_has_a_checkpoint(tmp_path: Path) -> None:
    others = ["open the window"] * 6
    first = made(tmp_path, WORDS)
    assert not first[1]
    written = (tmp_path / TOKENIZER_FILE).stat().st_mtime_ns
    assert made(tmp_path, WORDS) == first
    assert (tmp_path / TOKENIZER_FILE).stat().st_mtime_ns == written, "of the same texts they are the same"
    second = made(tmp_path, others)
    assert second == (train_tokenizer(others, 36).pieces, True) and second[0] != first[0]
    (tmp_path / "step-0000001.pt").touch()
    assert made(tmp_path, WORDS) == second


@pytest.mark.usefixtures("_no_dictionary")
@pytest.mark.parametrize("before", ["there is none yet", "a start was refused"])
def test_a_tokenizer_that_somebody_put_there_is_taken_whatever_the_texts_are(tmp_path: Path, before: str) -> None:
    if before == "a start was refused":
        made(tmp_path, WORDS)
    own = train_tokenizer([word[::-1] for word in WORDS], 36)
    own.save(tmp_path / TOKENIZER_FILE)
    assert made(tmp_path, ["open the window"] * 6) == (own.pieces, True)
    assert made(tmp_path, WORDS) == (own.pieces, False)


@pytest.mark.usefixtures("_no_dictionary")
@pytest.mark.parametrize("digests", ["", "one", "\udcff"])
def test_a_digest_that_a_full_disk_cut_short_is_as_good_as_none(tmp_path: Path, digests: str) -> None:
    first = made(tmp_path, WORDS)
    (tmp_path / f"{TOKENIZER_FILE}.sha256").write_text(digests, errors="surrogateescape")
    (tmp_path / f"{LEXICON_FILE}.sha256").write_text(digests, errors="surrogateescape")
    assert made(tmp_path, ["open the window"] * 6) == first


@pytest.mark.usefixtures("_no_dictionary")
@pytest.mark.parametrize("again", [False, True])
def test_a_start_that_fails_while_its_targets_are_written_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Neither half of one, nor one that the next start would take for somebody else's."""
    others = ["open the window"] * 6
    if again:
        made(tmp_path, WORDS)
    with monkeypatch.context() as patched:
        patched.setattr("training.atomic.os.fsync", Mock(side_effect=OSError("No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            made(tmp_path, others)
    assert not (tmp_path / TOKENIZER_FILE).exists() and not list(tmp_path.glob("*.part*"))
    assert made(tmp_path, others) == (train_tokenizer(others, 36).pieces, True)


@pytest.mark.parametrize("normalizer", ["nfc", "transcript"])
def test_a_tokenizer_of_texts_by_other_rules_is_refused_by_its_file(
    command: Command, capsys: pytest.CaptureFixture[str], normalizer: str
) -> None:
    own = command.folder / "runs" / "tiny" / TOKENIZER_FILE
    own.parent.mkdir(parents=True)
    train_tokenizer(WORDS, 36, normalizer=normalizer).save(own)
    arguments = command.arguments("runs", "--max-steps", "1")
    if normalizer == "transcript":
        main(arguments)
        return
    line = refused(arguments, capsys)
    assert line.startswith(f"train: {own}: a tokenizer of texts by ") and "'nfc'" in line
    assert line.endswith("not of transcripts") and not (command.folder / "runs" / "pcm").exists()


@pytest.mark.usefixtures("_no_dictionary")
def test_the_tokenizer_of_the_weights_that_a_run_starts_from_stays_though_the_texts_do_not(tmp_path: Path) -> None:
    first, _ = made(tmp_path, WORDS)  # as a start without --init-from would have it, equal by chance
    assert made(tmp_path, ["open the window"] * 6, given=True) == (first, True)


def test_held_out_speakers_teach_neither_tokenizer_nor_lexicon(command: Command) -> None:
    rows_changed(command.speech / "train.jsonl", lambda _, row: {"text": "zebra"} if row["speaker"] == "1" else {})
    arguments = with_own_lexicon(command.arguments("runs", "--max-steps", "1", "--hold-out"))
    main(rewritten(arguments, "[data]", '[data]\ntuning_speakers = ["1"]'))
    folder = command.folder / "runs" / "tiny-held-out"
    lexicon = Lexicon.load(folder / LEXICON_FILE)
    assert "shells" in lexicon and "zebra" not in lexicon
    heard = [WORDS[number % 6] for number in range(36) if number % 3 != 1]
    assert WordPieces.load(folder / TOKENIZER_FILE).pieces == train_tokenizer(heard, 36).pieces


@pytest.mark.parametrize(("shared", "held_out"), [(0, False), (2, False), (2, True)])
def test_dev_utterances_of_recordings_that_are_trained_on_are_counted(
    command: Command, capsys: pytest.CaptureFixture[str], shared: int, held_out: bool
) -> None:
    def of_training(number: int, row: dict[str, Any]) -> dict[str, Any]:
        return {"audio_filepath": "../speech/train-1.wav"} if number < shared else {}

    rows_changed(command.speech / "dev.jsonl", of_training)
    arguments = command.arguments("runs", "--max-steps", "1", *(["--hold-out"] if held_out else []))
    main(rewritten(arguments, "[data]", '[data]\ntuning_speakers = ["1"]'))
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    said = "warning: 2 of 6 dev utterances are of recordings that training has as well"
    assert told == ([said] if shared and not held_out else [])


def test_dev_utterances_too_fast_for_ctc_are_counted_in_the_models_own_frames(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each dev text has more pieces than frames of 80 ms, and fewer than frames of 40 ms."""
    counts = []
    rows_changed(command.speech / "dev.jsonl", lambda *_: {"text": "open the window"})
    for preset in ("streaming-xs", "transformer"):
        arguments = command.arguments(preset, "--max-steps", "1")
        if preset == "transformer":  # which never merges frames
            rewritten(arguments, "[model]", f'[model]\npreset = "{preset}"')
            rewritten(arguments, "downsample_after = 1", "")
        main(arguments)
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("dev: ")]
        counts.append(line.partition("; ")[2])
    assert counts == ["kept, but too fast for word-piece CTC: 6", "none left out"]


@pytest.mark.parametrize("dev", ["the first cannot be read", "all are longer than a quarter of a minute"])
def test_a_run_ends_with_its_pictures_whatever_of_dev_can_be_looked_at(command: Command, dev: str) -> None:
    manifest = command.speech / "dev.jsonl"
    if dev == "the first cannot be read":
        (command.speech / "dev-0.wav").write_text("no audio")
    else:
        soundfile.write(command.speech / "dev-0.wav", np.zeros(16 * 16_000, dtype=np.float32), 16_000)
        manifest.write_text(json.dumps({"audio_filepath": "dev-0.wav", "duration": 16.0, "text": "the sea"}) + "\n")
    main(command.arguments("runs", "--max-steps", "2"))
    for picture in ("curves.png", "attention.png"):
        assert (command.folder / "runs" / "tiny" / picture).stat().st_size > 5_000


def test_curves_are_drawn_though_there_is_nothing_to_attend_to(command: Command) -> None:
    main(command.arguments("runs", "--max-steps", "2"))
    folder = command.folder / "runs" / "tiny"
    (folder / "curves.png").unlink()
    rows_changed(command.speech / "dev.jsonl", lambda *_: {"text": "66"})
    with pytest.raises(ValueError, match=r"none of 6 dev utterances .*\(text not spelled out: 6\)"):
        draw_run(folder)
    assert (folder / "curves.png").exists()


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
