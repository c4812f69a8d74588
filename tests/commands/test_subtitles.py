"""Subtitles: cues that can be read, of all words, with cuts where the speaker pauses."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.commands.subtitles import (
    LINE_CHARACTERS,
    MAX_CUE_CHARACTERS,
    MAX_CUE_S,
    MAX_PAUSE_S,
    cues,
    subtitles,
)
from asr_service.evaluation.references.subtitles import read_subtitles
from asr_service.types import Word


@st.composite
def spoken(draw: st.DrawFn) -> list[Word]:
    words, time_s = [], 0.0
    for _ in range(draw(st.integers(0, 40))):
        time_s += draw(st.floats(0, 2))
        start_s = time_s
        time_s += draw(st.floats(0.01, 1))
        words.append(Word("w" * draw(st.integers(1, 12)), start_s, time_s, 0.9))
    return words


@given(spoken())
def test_cues_hold_all_words_in_order_and_none_is_too_long(words: list[Word]) -> None:
    made = list(cues(words))
    assert [word for cue in made for word in cue] == words
    for cue in made:
        assert len(" ".join(word.text for word in cue)) <= MAX_CUE_CHARACTERS
        assert len(cue) == 1 or cue[-1].end_s - cue[0].start_s <= MAX_CUE_S
        for one, two in itertools.pairwise(cue):
            assert two.start_s - one.end_s <= MAX_PAUSE_S


def test_subrip_and_webvtt_differ_in_header_number_and_mark() -> None:
    words = [Word("hello", 3661.0, 3661.5, 0.9)]
    assert list(subtitles(words, "srt")) == ["1", "01:01:01,000 --> 01:01:02,000", "hello", ""]
    assert list(subtitles(words, "vtt")) == ["WEBVTT", "", "01:01:01.000 --> 01:01:02.000", "hello", ""]


def test_a_short_cue_stays_for_a_second_or_until_the_next_one() -> None:
    words = [Word("yes", 0.0, 0.3, 0.9), Word("no", 2.0, 2.4, 0.9), Word("well", 2.7 + MAX_PAUSE_S, 5.5, 0.9)]
    times = [line for line in subtitles(words, "srt") if "-->" in line]
    assert times == [
        "00:00:00,000 --> 00:00:01,000",
        "00:00:02,000 --> 00:00:03,000",
        "00:00:03,700 --> 00:00:05,500",
    ]
    pressed = [Word("yes", 0.0, 0.1, 0.9), Word("w" * 84, 0.4, 0.9, 0.9)]
    assert next(line for line in subtitles(pressed, "srt") if "-->" in line) == "00:00:00,000 --> 00:00:00,400"


def said(text: str, pauses_s: dict[str, float] | None = None, word_s: float = 0.2) -> list[Word]:
    """Words one after the other, with these pauses before some of them."""
    words, time_s = [], 0.0
    for word in text.split():
        time_s += (pauses_s or {}).get(word, 0.0)
        words.append(Word(word, time_s, time_s + word_s, 0.9))
        time_s += word_s
    return words


def texts(words: list[Word]) -> list[str]:
    return [" ".join(word.text for word in cue) for cue in cues(words)]


def test_no_cue_is_left_with_the_rest_of_a_full_one() -> None:
    full = " ".join(["seventeen"] * 9)  # 89 characters: the ninth word does not fit
    assert sorted(len(text.split()) for text in texts(said(full))) == [4, 5]


def test_a_cue_ends_where_the_speaker_pauses() -> None:
    text = "first of all we came to see the city and from a hill we looked at it until the sun had gone down again"
    evenly, pausing = (texts(said(text, pauses_s)) for pauses_s in ({}, {"until": 0.6}))
    assert len(evenly) == len(pausing) == 2
    assert not evenly[1].startswith("until")
    assert pausing[1] == "until the sun had gone down again"


def test_a_long_cue_has_two_lines_of_like_lengths() -> None:
    lines = list(subtitles(said("we shall not cease from exploration and the end of all our exploring"), "vtt"))
    assert lines[3:] == ["we shall not cease from exploration", "and the end of all our exploring", ""]


@given(spoken())
def test_a_cue_has_at_most_two_lines_that_fit_the_screen(words: list[Word]) -> None:
    shown = "\n".join(subtitles(words, "srt"))
    made = [cue.split("\n")[2:] for cue in shown.rstrip("\n").split("\n\n") if cue]
    assert " ".join(line for lines in made for line in lines) == " ".join(word.text for word in words)
    for lines in made:
        assert len(lines) <= 2
        assert all(len(line) <= LINE_CHARACTERS for line in lines)


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_what_is_written_is_read_as_a_reference(tmp_path: Path, form: str) -> None:
    text = "we shall not cease from exploration and the end of all our exploring will be to arrive where we started"
    path = tmp_path / f"clip.{form}"
    path.write_text("\n".join(subtitles(said(text), form)) + "\n", encoding="utf-8")
    (tmp_path / "clip.wav").touch()
    problems: list[str] = []
    assert [reference.text for reference in read_subtitles(path, problems)] == [text]
    assert not problems
