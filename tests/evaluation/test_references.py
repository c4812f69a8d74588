from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from asr_service.errors import ConfigError
from asr_service.evaluation.problems import ManifestProblems, wrong_times
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references import FORMATS, format_of, read_references

Rows = list[Reference]


def lines(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def problems_of(path: Path, **options: object) -> list[str]:
    with pytest.raises(ManifestProblems) as caught:
        read_references(path, **options)
    return [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]


def write_jsonl(folder: Path, rows: Rows) -> Path:
    return lines(
        folder / "m.jsonl",
        *(
            json.dumps(
                {
                    "id": row.utterance_id,
                    "audio_filepath": str(row.audio_path.relative_to(folder)),
                    "text": row.text,
                    "offset": row.offset_s,
                    "duration": row.duration_s,
                    "speaker": row.speaker,
                    "corpus": row.corpus,
                    **row.fields,
                }
            )
            for row in rows
        ),
    )


def write_table(folder: Path, rows: Rows, *, name: str) -> Path:
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t" if name.endswith(".tsv") else ",")
        table.writerow(["id", "path", "sentence", "offset", "duration", "client_id", "corpus", *rows[0].fields])
        for row in rows:
            audio = row.audio_path.relative_to(folder)
            place = ["" if value is None else value for value in (row.offset_s, row.duration_s)]
            table.writerow([row.utterance_id, audio, row.text, *place, row.speaker, row.corpus, *row.fields.values()])
    return folder / name


def write_kaldi(folder: Path, rows: Rows) -> Path:
    directory = folder / rows[0].corpus
    lines(directory / "text", *(f"{row.utterance_id} {row.text}".strip() for row in rows))
    lines(directory / "utt2spk", *(f"{row.utterance_id} {row.speaker}" for row in rows))
    ends = [-1 if row.duration_s is None else row.offset_s + row.duration_s for row in rows]
    names = [row.audio_path.stem for row in rows]
    spans = [
        f"{row.utterance_id} {name} {row.offset_s} {end}" for row, name, end in zip(rows, names, ends, strict=True)
    ]
    lines(directory / "segments", *spans)
    lines(
        directory / "wav.scp",
        *sorted({f"{row.audio_path.stem} ../{row.audio_path.relative_to(folder)}" for row in rows}),
    )
    return directory


def write_lhotse(folder: Path, rows: Rows) -> Path:
    cuts = [
        {
            "id": f"cut-{row.utterance_id}",
            "start": row.offset_s - 0.5,
            "duration": 9.0,
            "channel": 0,
            "supervisions": [
                {
                    "id": row.utterance_id,
                    "recording_id": "r",
                    "start": 0.5,
                    "duration": row.duration_s,
                    "channel": 0,
                    "text": row.text,
                    "speaker": row.speaker,
                    "custom": dict(row.fields),
                }
            ],
            "recording": {
                "id": "r",
                "sources": [{"type": "file", "channels": [0], "source": str(row.audio_path.relative_to(folder))}],
                "sampling_rate": 16000,
                "num_samples": 320000,
                "duration": 20.0,
                "channel_ids": [0],
            },
            "type": "MonoCut",
        }
        for row in rows
    ]
    path = folder / f"{rows[0].corpus}.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(cut) for cut in cuts).encode()))
    return path


@pytest.mark.parametrize(
    "write",
    [
        write_jsonl,
        lambda folder, rows: write_table(folder, rows, name="m.csv"),
        lambda folder, rows: write_table(folder, rows, name="m.tsv"),
        write_lhotse,
    ],
    ids=["jsonl", "csv", "tsv", "lhotse"],
)
def test_what_was_written_is_read_back(tmp_path: Path, write: Callable[[Path, Rows], Path]) -> None:
    rows = [
        Reference(
            "u1", 'He said "no", twice', tmp_path / "a/r.wav", 1.5, 2.25, "ann", "set", {"snr": 3.5, "room": "b"}
        ),
        Reference("u2", "", tmp_path / "a/r.wav", 4.0, 1.0, "bob", "set", {"snr": 12.25, "room": "007"}),
    ]
    assert read_references(write(tmp_path, rows)) == rows


def test_a_kaldi_directory_with_segments_is_read_back(tmp_path: Path) -> None:
    rows = [
        Reference("u1", "one two", tmp_path / "set/../a/r.wav", 1.5, 2.25, "ann", "set"),
        Reference("u2", "", tmp_path / "set/../a/r.wav", 4.0, None, "bob", "set"),
    ]
    plain = [Reference(row.utterance_id, row.text, tmp_path / "a/r.wav", *row_place(row)) for row in rows]
    assert read_references(write_kaldi(tmp_path, plain)) == rows


def row_place(row: Reference) -> tuple[float, float | None, str, str]:
    return row.offset_s, row.duration_s, row.speaker, row.corpus


def test_a_kaldi_directory_without_segments_takes_whole_recordings_and_their_durations(tmp_path: Path) -> None:
    folder = tmp_path / "k"
    lines(folder / "text", "u1 a b", "u2 c")
    lines(folder / "wav.scp", "u1 x.flac", "u2 /data/y.wav")
    lines(folder / "utt2dur", "u1 2.5")
    first, second = read_references(folder / "text")
    assert (first.audio_path, first.duration_s, first.speaker) == (folder / "x.flac", 2.5, "")
    assert (second.audio_path, second.duration_s) == (Path("/data/y.wav"), None)
    (folder / "wav.scp").unlink()
    assert [reference.audio_path for reference in read_references(folder)] == [None, None]


def test_a_kaldi_directory_says_all_that_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "k"
    lines(folder / "text", "u1 a", "u1 b", "u2 c", "u3 d", "u5 e", "u6 f")
    lines(folder / "wav.scp", "r sph2pipe r.sph |", "q x.ark:17")
    lines(folder / "segments", "u1 r 0 1", "u2 s 0 1", "u3 r 2 1", "u4 r 0 1", "u6 r nan 1")
    lines(folder / "utt2spk", "u1 a", "u2 a", "u3 a", "u5 a")
    assert problems_of(folder) == [
        "k/text:2: u1 stands there twice",
        "k/wav.scp: r is the output of a command, and no command is run here",
        "k/wav.scp: q is 'x.ark:17', not an audio file",
        "k/segments: u4 is not in text",
        "k/utt2spk: u6 has no speaker",
        "k: u2: the recording s is not in wav.scp",
        "k: u3: its segment 2 to 1 s is empty or runs backwards",
        "k: u5: it has a text, but segments lacks it",
        "k: u6: its begin in segments is 'nan', not a number of seconds from 0 on",
    ]


def test_a_librispeech_tree_gives_speakers_subsets_and_recordings(tmp_path: Path) -> None:
    chapter = tmp_path / "dev-clean" / "84" / "121123"
    lines(chapter / "84-121123.trans.txt", "84-121123-0000 GO ON", "84-121123-0001 AND ON")
    lines(chapter / "84-121123-0000.opus")
    first, second = read_references(tmp_path)
    assert first == Reference(
        "84-121123-0000", "GO ON", chapter / "84-121123-0000.opus", speaker="84", corpus="dev-clean"
    )
    assert second.audio_path == chapter / "84-121123-0001.flac"
    assert problems_of(tmp_path, check_audio=True)[0].endswith("84-121123-0001.flac is missing")
    lines(chapter / "84-121123-0009.flac")
    assert problems_of(tmp_path)[0].endswith("84-121123-0009.flac: not in 84-121123.trans.txt")


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
        "talk-1-0.5-2.75", "hello there", tmp_path / "talk.sph", 0.5, 2.25, "ann", fields=labelled
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


def test_a_row_without_an_id_is_named_by_its_audio_and_its_offset(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "m.json",
        '{"audio_filepath": "a.wav", "text": "x"}',
        '{"audio_filepath": "a.wav", "text": "y", "offset": 2.5, "duration": 1}',
    )
    assert [row.utterance_id for row in read_references(path)] == ["a.wav", "a.wav@2.5"]


def test_a_manifest_of_rows_says_all_that_is_wrong(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "m.jsonl",
        "not json",
        "[1, 2]",
        '{"audio_filepath": "1.wav"}',
        '{"text": "x"}',
        '{"audio_filepath": "2.wav", "text": "x", "duration": NaN}',
        '{"audio_filepath": "3.wav", "text": "x", "offset": -1}',
        '{"audio_filepath": "4.wav", "text": ["x"]}',
        '{"audio_filepath": "5.wav", "text": "x", "duration": true}',
        '{"audio_filepath": "6.wav", "text": "x"}',
        '{"audio_filepath": "6.wav", "text": "x"}',
    )
    problems = problems_of(path)
    assert problems[0].startswith("m.jsonl:1: not JSON: ")
    assert problems[1:] == [
        "m.jsonl:2: not a JSON object",
        "m.jsonl:3: no text",
        "m.jsonl:4: neither audio_filepath nor id",
        "m.jsonl:5: duration is nan, not a number of seconds from 0 on",
        "m.jsonl:6: offset is -1, not a number of seconds from 0 on",
        "m.jsonl:7: text is not a text",
        "m.jsonl:8: duration is True, not a number of seconds from 0 on",
        "6.wav stands there 2 times",
    ]


def test_a_table_with_tabs_may_quote_its_cells_or_not(tmp_path: Path) -> None:
    path = lines(tmp_path / "m.tsv", "path\ttext", 'a.mp3\t"Oh," she said.', 'b.mp3\t"He said ""no"""')
    assert [row.text for row in read_references(path)] == ['"Oh," she said.', 'He said "no"']


def test_a_table_says_which_rows_have_other_columns(tmp_path: Path) -> None:
    path = lines(tmp_path / "m.csv", "id,text", "a,b", "c", "d,e,f", 'g,"h')
    problems = problems_of(path)
    assert problems[:2] == [f"m.csv:{number}: not as many columns as the first line names" for number in (3, 4)]
    assert "unexpected end of data" in problems[2]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"type": "MixedCut"}, "a MixedCut: only MonoCuts"),
        ({"recording": {"id": "r", "transforms": [{}], "duration": 9.0}}, "has transforms"),
        ({"recording": {"id": "r", "channel_ids": [0, 1], "duration": 9.0}}, "has 2 channels"),
        (
            {"recording": {"id": "r", "sources": [{"type": "url", "channels": [0], "source": "x"}], "duration": 9.0}},
            "is a url, not a file",
        ),
        ({"recording": None}, "the cut has no recording"),
        ({"start": math.nan}, "start is nan"),
    ],
)
def test_cuts_that_are_no_plain_stretch_of_a_file_are_problems(
    tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    path = write_lhotse(tmp_path, [Reference("u", "x", tmp_path / "r.wav", 1.0, 2.0, "ann", "set")])
    cut = json.loads(gzip.decompress(path.read_bytes())) | change
    (found,) = problems_of(lines(tmp_path / "cuts.jsonl", json.dumps(cut)))
    assert found.startswith("cuts.jsonl:1: ")
    assert problem in found


@pytest.mark.slow  # imports lhotse and with it torch
def test_lhotse_itself_writes_what_is_read(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    recording = lhotse.Recording(
        id="r",
        sources=[lhotse.AudioSource(type="file", channels=[0], source="a/r.wav")],
        sampling_rate=16000,
        num_samples=160000,
        duration=10.0,
    )
    spoken = lhotse.SupervisionSegment(id="s", recording_id="r", start=-0.5, duration=2.0, text="hello", speaker="ann")
    cuts = [
        lhotse.MonoCut(id="c", start=1.0, duration=5.0, channel=0, recording=recording, supervisions=[spoken]),
        lhotse.MonoCut(id="d", start=0.0, duration=10.0, channel=0, recording=recording),
    ]
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    assert read_references(tmp_path / "cuts.jsonl.gz") == [
        Reference("s", "hello", tmp_path / "a/r.wav", 1.0, 1.5, "ann", "cuts"),
        Reference("d", "", tmp_path / "a/r.wav", 0.0, 10.0, "", "cuts"),
    ]


def test_several_manifests_are_one_test_set_without_the_same_id_twice(tmp_path: Path) -> None:
    first, second = lines(tmp_path / "a.trn", "x (1)"), lines(tmp_path / "b.trn", "y (2)")
    assert [row.utterance_id for row in read_references([first, str(second)])] == ["1", "2"]
    with pytest.raises(ManifestProblems, match="1 stands there 2 times"):
        read_references([first, first])


def test_corpora_can_be_chosen_and_one_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    path = lines(tmp_path / "m.csv", "id,text,corpus", "1,x,a", "2,y,b")
    assert [row.utterance_id for row in read_references(path, corpora=["b"])] == ["2"]
    assert problems_of(path, corpora=["b", "z"]) == [
        f"manifest {path}: no utterance of the corpus z".replace(f"{tmp_path}/", "")
    ]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "gone.jsonl") == ["manifest gone.jsonl: No such file or directory"]
    assert problems_of(lines(tmp_path / "empty.trn")) == ["manifest empty.trn: no utterance"]
    assert "its format is none of" in problems_of(lines(tmp_path / "notes.docx", "x"))[0]
    (tmp_path / "bad.trn").write_bytes(b"\xff (a)\n")
    assert problems_of(tmp_path / "bad.trn") == ["bad.trn: no UTF-8 at byte 0"]
    (tmp_path / "bad.jsonl.gz").write_bytes(b"no gzip")
    assert problems_of(tmp_path / "bad.jsonl.gz")[0].startswith("bad.jsonl.gz: ")
    with pytest.raises(ManifestProblems, match="no manifest is named"):
        read_references([])


def test_a_format_can_be_named_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "refs.txt", "one two (a-1)")
    assert format_of(path) == ""
    assert read_references(path, format="trn")[0].text == "one two"
    with pytest.raises(ConfigError, match=f"one of {', '.join(FORMATS)}"):
        read_references(path, format="docx")


def test_channels_of_one_recording_cannot_be_recognised_apart(tmp_path: Path) -> None:
    (tmp_path / "call.wav").touch()
    path = lines(tmp_path / "t.stm", "call A ann 0 1 hi", "call B bob 1 2 hello")
    assert len(read_references(path)) == 2
    assert problems_of(path, check_audio=True) == ["call.wav: 2 channels are scored apart: make a recording of each"]


def test_times_of_references_made_in_code_are_checked_too() -> None:
    made = [Reference("a", "x", offset_s=math.nan), Reference("b", "x", duration_s=-1.0), Reference("c", "x")]
    assert [problem.split(":")[0] for problem in wrong_times(made)] == ["a", "b"]
