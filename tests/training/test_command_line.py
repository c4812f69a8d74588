"""What `--help` of the training commands shows."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest

import training
from training.command_line import command_parser

COMMANDS = sorted(
    path.stem
    for path in Path(training.__file__).parent.glob("*.py")
    if f'command_parser("{path.stem}"' in path.read_text().replace("command_parser(\n        ", "command_parser(")
)


class ParserMade(Exception):
    """Instead of a command's arguments: its parser."""


def parser_of(command: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise ParserMade(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(ParserMade) as made:
        importlib.import_module(f"training.{command}").main()
    parser: argparse.ArgumentParser = made.value.args[0]
    return parser


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_how_a_command_is_typed_and_what_each_option_is(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = parser_of(command, monkeypatch)
    assert parser.format_usage().startswith(f"usage: python -m training.{command} ")
    assert "Dimensions:" not in parser.format_help()
    assert not [action.dest for action in parser._actions if not action.help]


def test_all_commands_are_looked_at() -> None:
    assert {"train", "prepare", "export", "lm", "neural_lm"} < {*COMMANDS}


@pytest.mark.parametrize("command", ["distort", "lm", "neural_lm"])
def test_examples_of_several_lines_stay_several_lines(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = parser_of(command, monkeypatch).format_help().splitlines()
    continued = [number for number, line in enumerate(lines) if line.endswith(" \\")]
    assert continued and all(lines[number + 1].startswith("        --") for number in continued)


def test_a_description_stays_as_it_is_written() -> None:
    assert "\n    a  b\n" in command_parser("x", "What it is.\n\n    a  b\n").format_help()
