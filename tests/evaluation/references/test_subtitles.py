"""References from subtitles: SubRip and WebVTT."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from asr_service.evaluation.references import read_references
from tests.evaluation.references.manifests import lines, problems_of

SRT = (
    "1",
    "00:00:01,000 --> 00:00:02,500",
    "<i>Hello</i> &amp; good",
    "morning.",
    "",
    "2",
    "00:01:00,000 --> 00:01:01,000",
    "Bye.",
)


VTT = (
    "WEBVTT - a talk",
    "",
    "NOTE nothing to say",
    "",
    "00:01.000 --> 00:02.500 position:10%",
    "<v Ann>Hello</v> &amp; good",
    "morning.",
    "",
    "intro",
    "01:00.000 --> 01:01.000",
    "Bye.",
)


@pytest.mark.parametrize(("name", "rows"), [("talk.srt", SRT), ("talk.vtt", VTT)])
def test_subtitles_are_one_reference_of_the_recording_beside_them(
    tmp_path: Path, name: str, rows: tuple[str, ...]
) -> None:
    (tmp_path / "talk.mp3").touch()
    (reference,) = read_references(lines(tmp_path / name, *rows), check_audio=True)
    assert (reference.utterance_id, reference.text) == ("talk", "Hello & good morning. Bye.")
    assert (reference.audio_path, reference.fields) == (tmp_path / "talk.mp3", {"cues": 2})


def test_subtitles_say_all_that_is_wrong(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "t.srt", "1", "00:00:03,000 --> 00:00:02,000", "a", "", "lost text", "", "00:00:61,000 --> x", "b"
    )
    assert problems_of(path) == [
        "t.srt:2: the cue ends before it begins",
        "t.srt:5: a cue without its times",
        "t.srt:7: '00:00:61,000' is no time, which looks like 00:01:02.500",
    ]


def test_an_empty_line_that_is_missing_before_a_cue_is_told(tmp_path: Path) -> None:
    cues = ("1", "00:00:00,000 --> 00:00:01,000", "hello", "2", "00:00:01,000 --> 00:00:02,000", "a --> b")
    missing = "times in the middle of a cue, where an empty line is missing before it"
    assert problems_of(lines(tmp_path / "t.srt", *cues)) == [f"t.srt:5: {missing}"]
    assert problems_of(lines(tmp_path / "t.vtt", "WEBVTT", "", *cues)) == [f"t.vtt:7: {missing}"]


def test_only_webvtt_has_notes_and_a_word_that_begins_like_one_is_none(tmp_path: Path) -> None:
    cue = ("00:00:00,000 --> 00:00:01,000", "hello")
    assert problems_of(lines(tmp_path / "t.srt", *cue, "", "NOTE this is said")) == ["t.srt:4: a cue without its times"]
    (reference,) = read_references(lines(tmp_path / "a.vtt", "WEBVTT", "", *cue, "", "NOTE this is not"))
    assert reference.text == "hello"
    assert problems_of(lines(tmp_path / "t.vtt", "WEBVTT", "", *cue, "", "NOTES are")) == [
        "t.vtt:6: a cue without its times"
    ]


def test_packed_subtitles_are_those_of_the_recording_beside_them(tmp_path: Path) -> None:
    (tmp_path / "talk.mp3").touch()
    packed = tmp_path / "talk.srt.gz"
    packed.write_bytes(gzip.compress("\n".join(SRT).encode()))
    assert read_references(packed) == read_references(lines(tmp_path / "talk.srt", *SRT))
