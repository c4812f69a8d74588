"""`--help` of the commands says what they take."""

from __future__ import annotations

import pytest

from asr_service.cli import main
from asr_service.commands import evaluate
from asr_service.evaluation import hypotheses, references


def help_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["compare"], "Says which of several systems is better"),
        (["compare"], "write a report of exactly two"),
        (["transcribe"], "MP3; - is stdin"),
        (["stream"], "MP3; - is stdin"),
        (["demo"], "Starts a server, streams a clip to it"),
        (["models"], "Lists the presets and bundles there are"),
        (["eval"], f"of the manifests: {', '.join(references.FORMATS)} (default"),
        (["eval"], f"of it: {', '.join(hypotheses.FORMATS)} (default"),
        (["eval"], "40 ms frames of a chunk; needs --mode streaming"),
        (["eval"], "needs --mode streaming (default: of the settings)"),
        (["bench", "live"], "connections: a number, or the letter N for one a stream (default: 1)"),
    ],
)
def test_the_help_says(command: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in help_of(command, capsys)


def test_the_formats_of_the_command_are_those_there_are() -> None:
    assert evaluate.FORMATS == references.FORMATS
    assert evaluate.HYP_FORMATS == hypotheses.FORMATS
