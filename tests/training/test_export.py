"""Exporting again keeps the settings of the bundle that is there, which people edit, if a server would take them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asr_service.model.bundle import CONFIG_FILE, SHIPPED_DIR, load_bundle
from tests.training.conftest import Corpus
from training.average import keep_best
from training.export import kept_settings
from training.export import main as export


def test_the_settings_of_every_shipped_bundle_are_kept() -> None:
    for path in SHIPPED_DIR.glob(f"*/{CONFIG_FILE}"):
        assert kept_settings(path.parent) == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: "{", "not JSON: "),
        (
            lambda config: config | {"streaming": {"chunk": 1}},
            r"\[streaming\] chunk: no such setting; known are chunk_fr",
        ),
        (lambda config: config | {"streaming": [1]}, r"streaming is \[1\], must be a table"),
        (lambda config: config | {"streaming": {"chunk_frames": 3}}, "streaming.chunk_frames is 3, must be an even"),
        (lambda config: {name: config[name] for name in config if name != "decoding"}, "field 'decoding' is missing"),
        (lambda config: config | {"decoding": {"acurate": {}}}, "decoding.acurate is not known"),
        (
            lambda config: config | {"dial": {"low": {"decoding": {"acurate": {}}}}},
            "dial.low: decoding.acurate is not known",
        ),
        (
            lambda config: config | {"dial": {"low": {"streaming": {"chunk": 1}}}},
            r"dial.low: \[streaming\] chunk: no such",
        ),
    ],
)
def test_settings_of_the_bundle_there_that_no_server_would_take_are_refused_by_file_and_field(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Any], Any], said: str
) -> None:
    run = corpus.folder / "run"
    corpus.trainer("run").save()
    corpus.pieces.save(run / "tokenizer.json")
    command = ["--run", str(run), "--out", str(tmp_path / "out")]
    export(command)
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"streaming": {"chunk_frames": 8}}))
    export(command)
    assert load_bundle(tmp_path / "out").streaming.chunk_frames == 8
    changed = change(config)
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        export(command)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"export: {re.escape(str(path))}: .*{said}", line), line


def test_a_model_that_was_trained_after_silence_gets_it_and_has_its_runs_name(corpus: Corpus, tmp_path: Path) -> None:
    trainer = corpus.trainer("led", lead_frames=6)
    keep_best(trainer.folder, trainer._averaged() | {"dev": {"total": 1.0}}, 1)
    trainer.save()
    corpus.pieces.save(trainer.folder / "tokenizer.json")
    for number, options in enumerate(([], ["--average", "1"])):
        out = tmp_path / str(number)
        export(["--run", str(trainer.folder), "--out", str(out), *options])
        bundle = load_bundle(out)
        assert (bundle.streaming.lead_frames, bundle.name) == (6, "led")
