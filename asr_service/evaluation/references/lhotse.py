"""lhotse's cuts (JSON lines, mostly gzipped): each supervision of a cut is an utterance. Read without lhotse."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from asr_service.evaluation.reference import FieldValue, Reference
from asr_service.evaluation.references.rows import json_rows
from asr_service.evaluation.references.text import finite, seconds

# lhotse rounds times to a thousandth of a millisecond; a cut this close to the recording's ends is all of it.
_TOLERANCE_S = 1e-3
# What more of a supervision lies outside its cut may be words, which its text still has.
_CUT_OFF_S = 0.1


def read_lhotse(path: Path, problems: list[str]) -> list[Reference]:
    """The supervisions' texts, with their place in the recording; audio paths are relative to the manifest's folder.

    A cut without supervision is an empty reference: nobody speaks. Problems are cuts that are no plain stretch of a
    one-channel file: mixed or padded ones, transforms (speed, volume), audio from commands or URLs.
    """
    parts = parts_of_cuts(json_rows(path, problems), path.parent, path.name.split(".")[0], problems)
    return [reference for reference, _ in parts]


def parts_of_cuts(
    cuts: Iterable[tuple[str, Mapping[str, Any]]], audio_root: Path, corpus: str, problems: list[str]
) -> Iterator[tuple[Reference, bool]]:
    """Each supervision's reference, and whether it is all of its recording.

    `cuts` are objects as lhotse writes them, each with the place that a problem names; relative paths of their audio
    are relative to `audio_root`.
    """
    for place, cut in cuts:
        try:
            audio = audio_root / _audio_file(cut)
            whole_s = seconds(cut["recording"]["duration"], "the recording's duration")
            begin_s, length_s = seconds(cut["start"], "start"), seconds(cut["duration"], "duration")
            parts = cut.get("supervisions") or [{"id": cut["id"], "start": 0.0, "duration": length_s}]
            for part in parts:
                # Its start counts from the cut's, and may lie before it: what is cut off was said elsewhere.
                said_s = seconds(part["duration"], "a supervision's duration")
                begins_s = _from_cut(part["start"])
                start_s, end_s = max(0.0, begins_s), min(length_s, begins_s + said_s)
                if (lost_s := said_s - (end_s - start_s)) > _CUT_OFF_S:
                    raise ValueError(
                        f"supervision {part['id']} lasts {said_s:g} s, {lost_s:.3g} s of them outside the cut"
                    )
                offset_s, duration_s = begin_s + start_s, seconds(round(end_s - start_s, 8), "what a cut holds of it")
                whole = offset_s < _TOLERANCE_S and abs(duration_s - whole_s) < _TOLERANCE_S
                text, speaker = _text(part, "text"), _text(part, "speaker")
                fields = _fields(part) | _fields(cut)
                offset_s = 0.0 if whole else offset_s
                yield Reference(str(part["id"]), text, audio, offset_s, duration_s, speaker, corpus, fields), whole
        except KeyError as error:
            problems.append(f"{place}: the cut has no {error}")
        except (TypeError, AttributeError, ValueError) as error:
            problems.append(f"{place}: {error}")


def _from_cut(start: object) -> float:
    """A supervision's start in seconds, below 0 before the cut's. Raises ValueError for what is no such number."""
    try:
        number = math.nan if isinstance(start, bool) else float(start)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"a supervision's start is {start!r}, not a number of seconds")
    return number


def _text(part: Mapping[str, Any], name: str) -> str:
    value = part.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"a supervision's {name} is {value!r}, not a text")
    return value or ""


def _fields(part: Mapping[str, Any]) -> dict[str, FieldValue]:
    found = {name: part.get(name) for name in ("language", "gender")} | (part.get("custom") or {})
    return {name: finite(value, name) for name, value in found.items() if isinstance(value, (str, int, float, bool))}


def _audio_file(cut: Mapping[str, Any]) -> str:
    """The file of a plain cut. Raises ValueError for any other kind, KeyError where a field is missing."""
    kind = cut.get("type", "MonoCut")
    if kind != "MonoCut":
        raise ValueError(f"a {kind}: only MonoCuts are plain stretches of a recording")
    recording = cut.get("recording")
    if not isinstance(recording, dict):
        raise ValueError("the cut has no recording")
    if recording.get("transforms"):
        raise ValueError(f"the recording {recording['id']} has transforms: save its audio first (CutSet.save_audios)")
    channels = recording.get("channel_ids") or [
        number for source in recording["sources"] for number in source["channels"]
    ]
    if len(channels) != 1:
        raise ValueError(f"the recording {recording['id']} has {len(channels)} channels: split them first")
    (source,) = recording["sources"]
    if source["type"] != "file":
        raise ValueError(f"the audio of {recording['id']} is a {source['type']}, not a file")
    return str(source["source"])
