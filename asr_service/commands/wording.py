"""What an error says, in the words of the command line: its messages name the fields of the API."""

from __future__ import annotations

import re
from pathlib import Path

from asr_service.errors import AsrError

# Of a file there is nothing to say but the channel and the phrases: its header tells the rest.
_OPTIONS = (
    (re.compile(r"^streaming_config\.(?=config\.)"), lambda _: ""),
    (re.compile(r"config\.phrase_hints\[0\]\.phrases\[(\d+)\]"), lambda found: f"--phrase number {int(found[1]) + 1}"),
    (re.compile(r"config\.phrase_hints\[0\]\.boost"), lambda _: "--boost"),
    (re.compile(r"config\.phrase_hints\b"), lambda _: "--phrase"),
    (re.compile(r"config\.audio_channel\b"), lambda _: "--channel"),
    (re.compile(r"config\.mode\b"), lambda _: "--mode"),
    (re.compile(r"config\.encoding is unset and the audio has"), lambda _: "the audio has"),
    (
        re.compile(r"raw samples need config\.encoding and config\.sample_rate_hertz"),
        lambda _: "raw samples need a header first, such as WAV's",
    ),
    (re.compile(r"^audio: "), lambda _: ""),
)


def said(error: AsrError | OSError) -> str:
    """The message for the person at the terminal."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    message = error.message
    for field, option in _OPTIONS:
        message = field.sub(option, message)
    return message


def readable(name: Path | str) -> str:
    r"""A file's name as text that can be written anywhere: \xff for a byte that the locale could not decode."""
    return str(name).encode(errors="surrogateescape").decode(errors="backslashreplace")
