"""What options of the command line may be, beyond argparse's own types."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from asr_service.commands.wording import readable
from asr_service.config import PhraseHintSettings

STDIN = Path("-")
# Of asr_service.evaluation.normalizer.
NORMALIZERS = ("none", "basic", "english", "librispeech")
# gRPC takes them without a word and sends its own.
_KEYS_OF_GRPC = ("content-length", "content-type", "te", "user-agent")


def recording(text: str) -> Path:
    """A recording's path; - is STDIN, and ./- a file of that name."""
    path = Path(text)
    return path.absolute() if path == STDIN and text != "-" else path


def positive(text: str) -> int:
    """A whole number from 1 on. Raises ArgumentTypeError, or ValueError for what is no number."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {number}")
    return number


def unicode_text(text: str) -> str:
    """Text that can be sent and written. Raises ArgumentTypeError for bytes that the locale could not decode."""
    if re.search(r"[\ud800-\udfff]", text):
        raise argparse.ArgumentTypeError(f"{readable(text)} is no text in the encoding of the locale")
    return text


def boost(text: str) -> float:
    """A boost as the API bounds it. Raises ArgumentTypeError, or ValueError for what is no number."""
    number, most = float(text), PhraseHintSettings.MAX_BOOST
    if not 0 <= number <= most:
        raise argparse.ArgumentTypeError(f"must be 0 to {most:g}, not {text}")
    return number


def metadata(text: str) -> tuple[str, str]:
    """KEY=VALUE as gRPC sends it with a call. Raises ArgumentTypeError, which tells nothing of the value: a secret."""
    key, equals, value = text.partition("=")
    problem = ""
    if not equals:
        problem = "must be KEY=VALUE"
    elif not key:
        problem = "has no key before its ="
    elif wrong := re.search("[^0-9a-z_.-]", key):
        problem = f"a key has lower-case letters, digits and -_. alone, not {wrong[0]!r}"
    elif key.startswith("grpc-") or key in _KEYS_OF_GRPC:
        problem = f"{key} is a key of gRPC's own"
    elif key.endswith("-bin"):
        problem = f"{key} would have bytes for a value, for it ends in -bin; only text can be given here"
    elif wrong := re.search("[^ -~]", value):
        problem = f"the value of {key} may have printable ASCII characters alone, not {wrong[0]!r}"
    if problem:
        raise argparse.ArgumentTypeError(problem)
    return key, value
