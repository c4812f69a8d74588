"""A test set and the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import soundfile

from asr_service.cli import main
from tests.commands.evaluations import Run
from tests.fake_engine import say


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    """Six recordings of two corpora; the text of each is what one would say."""
    rows = []
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", say(number, 0.2, number + 1, 0.3), 16_000)
        rows.append({"audio_filepath": f"{number}.wav", "text": f"Word {number}", "corpus": "ab"[number % 2]})
    manifest = tmp_path / "test.jsonl"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return manifest


@pytest.fixture
def asr(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: object) -> int:
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["asr", *words])
        return main(words)

    return run
