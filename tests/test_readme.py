"""What the README shows works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import soundfile

from asr_service.cli import build_parser
from asr_service.config import ServerSettings, Settings
from asr_service.server.app import ServerThread
from tests.fake_engine import FakeEngine, say

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("of_a_file", [False, True], ids=["as it stands", "as it says for a file"])
def test_the_client_in_the_readme_runs(
    of_a_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 1
    assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 10
    if of_a_file:
        (option,) = re.findall(r"# for a file: (\S+) instead$", blocks[0], flags=re.MULTILINE)
        blocks[0] = blocks[0].replace("interim_results=True", option)
    monkeypatch.chdir(tmp_path)
    soundfile.write("talk.flac", say(3, 0.2, 5, 1.2), 16_000)
    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0, grace_s=2.0))
    with ServerThread(settings, FakeEngine) as address:
        exec(blocks[0].replace("localhost:50051", address), {})
    unary, *streamed = capsys.readouterr().out.splitlines()
    assert unary == "three five"
    assert streamed[-1] == "final three five"
    assert all(line.startswith(("so far ", "final ")) for line in streamed)


def test_the_commands_in_the_readme_are_commands() -> None:
    lines = re.findall(r"^\$ \.venv/bin/asr (.*?)(?:\s+#.*)?$", README, flags=re.MULTILINE)
    assert len(lines) > 3
    for line in lines:
        build_parser().parse_args(line.split())


def test_files_that_the_readme_names_are_there() -> None:
    links = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert links
    assert [target for target in links if not (ROOT / target).exists()] == []


def test_make_targets_that_the_readme_names_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake (\w+)", README))
    assert named <= set(re.findall(r"^(\w+):", makefile, flags=re.MULTILINE))
