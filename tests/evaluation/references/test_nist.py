"""References in NIST's formats: STM, CTM and TRN."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_service.evaluation.reference import Reference, Unscored
from asr_service.evaluation.references import read_references
from tests.evaluation.references.manifests import lines, problems_of


def test_an_stm_gives_segments_with_labels_and_leaves_out_what_is_not_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "talk.sph").touch()
    path = lines(
        tmp_path / "t.stm",
        ";; a comment",
        "talk 1 ann 0.5 2.75 <o,f0,female> hello there",
        "talk 1 bob 3 4",
        "talk 1 x 4 9 <o,,> IGNORE_TIME_SEGMENT_IN_SCORING",
    )
    first, second = read_references(path)
    labelled = {"recording": "talk", "channel": "1", "labels": "o,f0,female"}
    assert first == Reference(
        "talk-1-0.5-2.75",
        "hello there",
        tmp_path / "talk.sph",
        0.5,
        2.25,
        "ann",
        fields=labelled,
        unscored=(Unscored("talk", "1", 4.0, 9.0),),
    )
    assert (second.text, second.duration_s, "labels" in second.fields) == ("", 1.0, False)
    assert "1 segments are marked" in caplog.text


def test_an_stm_says_all_that_is_wrong(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "t.stm",
        "talk 1 ann 0",
        "talk 1 ann nan 2 a",
        "talk 1 ann 2 1 a",
        "talk 1 ann 2 3 { a / b } c",
        "talk 1 ann 3 4 well (uh) yes",
    )
    unsupported = "alternatives ({ a / b }, (a) or @) are not supported"
    assert problems_of(path) == [
        "t.stm:1: needs recording, channel, speaker, begin and end",
        "t.stm:2: begin is 'nan', not a number of seconds from 0 on",
        "t.stm:3: the segment 2 to 1 s is empty or runs backwards",
        f"t.stm:4: {unsupported}",
        f"t.stm:5: {unsupported}",
    ]


def test_a_ctm_joins_the_words_of_a_recording_in_the_order_of_their_times(tmp_path: Path) -> None:
    (tmp_path / "talk.wav").touch()
    path = lines(tmp_path / "t.ctm", "talk 1 1.0 0.5 there", "talk 1 0.2 0.5 hello 0.9", "call B 0 1 yes")
    talk, call = read_references(path)
    assert (talk.utterance_id, talk.text, talk.audio_path) == ("talk", "hello there", tmp_path / "talk.wav")
    assert (call.utterance_id, call.text) == ("call-B", "yes")


def test_a_ctm_says_all_that_is_wrong(tmp_path: Path) -> None:
    path = lines(tmp_path / "t.ctm", "talk 1 0 1", "talk 1 -1 1 a", "talk 1 0 1 a 1.5", "talk 1 * * <ALT_BEGIN>")
    assert problems_of(path) == [
        "t.ctm:1: needs recording, channel, begin, duration and word",
        "t.ctm:2: begin is '-1', not a number of seconds from 0 on",
        "t.ctm:3: confidence is '1.5', not a number from 0 to 1",
        "t.ctm:4: alternatives (<ALT_BEGIN>) are not supported",
    ]


def test_a_trn_gives_texts_ids_and_speakers(tmp_path: Path) -> None:
    (tmp_path / "ann-2.flac").touch()
    path = lines(tmp_path / "t.trn", "one two (ann_1)", " (ann-2)", "three (solo)")
    references = read_references(path)
    assert [(row.utterance_id, row.text, row.speaker) for row in references] == [
        ("ann_1", "one two", "ann"),
        ("ann-2", "", "ann"),
        ("solo", "three", ""),
    ]
    assert [row.audio_path for row in references] == [None, tmp_path / "ann-2.flac", None]
    assert problems_of(path, check_audio=True) == [
        "ann_1: no recording is named",
        "solo: no recording is named",
    ]
    assert problems_of(lines(path, "no id", "{ a / b } (x)")) == [
        "t.trn:1: no utterance id in parentheses at the end",
        "t.trn:2: alternatives ({ a / b }, (a) or @) are not supported",
    ]
