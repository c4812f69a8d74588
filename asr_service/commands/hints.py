"""`--phrase` and `--boost`: words and phrases to expect."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from asr_service.commands.option_types import boost, unicode_text
from asr_service.config import PhraseHintSettings


@dataclass(frozen=True, slots=True)
class PhraseGroup:
    """As the API's PhraseHints: a boost of 0 is the default of the settings."""

    phrases: tuple[str, ...]
    boost: float = 0.0


def add_hint_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--phrase",
        type=unicode_text,
        action="append",
        default=[],
        metavar="TEXT",
        help="a word or phrase to expect (repeatable)",
    )
    parser.add_argument(
        "--boost",
        type=boost,
        metavar="N",
        help=f"they are taken to be e^N times as likely, N up to {PhraseHintSettings.MAX_BOOST:g} "
        f"(default, and for 0: the settings', {PhraseHintSettings().default_boost:g}, less for short ones)",
    )


def hint_groups(arguments: argparse.Namespace) -> tuple[PhraseGroup, ...]:
    """The phrases asked for, as one group or none; a boost without a phrase is wrong usage."""
    if arguments.phrase:
        return (PhraseGroup(tuple(arguments.phrase), arguments.boost or 0.0),)
    if arguments.boost is not None:
        arguments.usage_error("--boost has no effect without --phrase")
    return ()


def hint_fields(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The same for the client's option `phrase_hints`."""
    return [{"phrases": group.phrases, "boost": group.boost} for group in hint_groups(arguments)]
