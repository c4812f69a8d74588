"""What was said: one utterance of a test set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FieldValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Unscored:
    """A part of a recording in which nothing is scored: what another system has there counts nowhere."""

    recording: str
    channel: str
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Reference:
    """One utterance of a test set.

    Attributes:
        utterance_id: unique in a test set; from a manifest without ids the audio path as the manifest spells it.
        text: as transcribed, before any normalisation. Empty where nobody speaks.
        audio_path: None where only text is scored.
        offset_s, duration_s: which part of the audio; a duration of None is up to its end.
        speaker, corpus: "" where unknown.
        fields: every other field of the manifest, by name.
        unscored: of all recordings of the file that it comes from.
    """

    utterance_id: str
    text: str
    audio_path: Path | None = None
    offset_s: float = 0.0
    duration_s: float | None = None
    speaker: str = ""
    corpus: str = ""
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    unscored: tuple[Unscored, ...] = ()
