"""What is told of where an evaluation came from."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
from pathlib import Path

import pytest

import asr_service
from asr_service.evaluation.provenance import machine, provenance, source


def test_the_command_is_as_it_was_typed() -> None:
    about = provenance(["eval", "../sets/my dev.jsonl", "--mode", "streaming"])
    assert about["command"] == "asr eval '../sets/my dev.jsonl' --mode streaming"


@pytest.mark.parametrize(
    "given",
    [
        ["--metadata", "authorization=Bearer a=b"],
        ["--meta", "authorization=Bearer a=b"],
        ["--metadata=authorization=Bearer a=b"],
    ],
)
def test_what_is_told_a_proxy_does_not_get_into_reports(given: list[str]) -> None:
    command = provenance(["eval", "dev.jsonl", *given, "--tls"])["command"]
    assert "Bearer" not in command
    assert "authorization=…" in command and command.endswith("--tls")


def test_nothing_tells_where_this_machine_keeps_its_files() -> None:
    about = provenance(["eval", "dev.jsonl"])
    for folder in (Path.cwd(), Path.home(), Path(asr_service.__file__).parent):
        assert not any(str(folder) in value for value in about.values())


def test_machine_versions_and_date_are_told() -> None:
    about = provenance([])
    assert re.search(r", \d+ cores$", machine()) and about["machine"] == machine()
    assert about["torch"][0].isdigit() and about["python"][0].isdigit()
    date = dt.datetime.fromisoformat(about["date"])
    assert date.utcoffset() == dt.timedelta(0)
    assert abs(dt.datetime.now(dt.UTC) - date) < dt.timedelta(minutes=10)


def package_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = folder / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(asr_service, "__file__", str(package / "__init__.py"))
    return package


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_checkout_and_changes_of_the_package_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = package_in(tmp_path, monkeypatch)
    git(tmp_path, "init", "-q")
    assert source() == {}  # lies in a repository that does not track it
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    first = source()
    assert first["commit"] == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "notes").write_text("of something else")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "two")
    second = source()
    assert second["commit"] != first["commit"] and second["code"] == first["code"]
    (package / "__init__.py").write_text("changed = True")
    assert source() == {name: f"{value}+" for name, value in second.items()}


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package_in(tmp_path, monkeypatch)
    assert source() == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source() == {}
