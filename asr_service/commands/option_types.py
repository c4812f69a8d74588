"""What options of the command line may be, beyond argparse's own types."""

from __future__ import annotations

import argparse

from asr_service.config import PhraseHintSettings


def positive(text: str) -> int:
    """A whole number from 1 on. Raises ArgumentTypeError, or ValueError for what is no number."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {number}")
    return number


def boost(text: str) -> float:
    """A boost as the API bounds it. Raises ArgumentTypeError, or ValueError for what is no number."""
    number, most = float(text), PhraseHintSettings.MAX_BOOST
    if not 0 <= number <= most:
        raise argparse.ArgumentTypeError(f"must be 0 to {most:g}, not {text}")
    return number
