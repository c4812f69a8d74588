"""References as rows with named fields: JSON lines, CSV and TSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from asr_service.evaluation.references import read_references
from tests.evaluation.references.manifests import Rows, lines, problems_of, two_parts


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


@pytest.mark.parametrize(
    "write",
    [
        write_jsonl,
        lambda folder, rows: write_table(folder, rows, name="m.csv"),
        lambda folder, rows: write_table(folder, rows, name="m.tsv"),
    ],
    ids=["jsonl", "csv", "tsv"],
)
def test_what_was_written_is_read_back(tmp_path: Path, write: Callable[[Path, Rows], Path]) -> None:
    rows = two_parts(tmp_path)
    assert read_references(write(tmp_path, rows)) == rows


def test_a_row_without_an_id_is_named_by_its_audio_and_its_offset(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "m.json",
        '{"audio_filepath": "a.wav", "text": "x"}',
        '{"audio_filepath": "a.wav", "text": "y", "offset": 2.5, "duration": 1}',
    )
    assert [row.utterance_id for row in read_references(path)] == ["a.wav", "a.wav@2.5"]


def test_parts_late_in_a_long_recording_are_told_apart(tmp_path: Path) -> None:
    parts = [{"audio": "a.wav", "text": "x", "offset": begin, "duration": 0.02} for begin in (12_345.67, 12_345.69)]
    path = lines(tmp_path / "m.jsonl", *map(json.dumps, parts))
    assert [row.utterance_id for row in read_references(path)] == ["a.wav@12345.67", "a.wav@12345.69"]


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
        '{"audio_filepath": "7.wav", "text": "x", "snr_db": NaN}',
        '{"audio_filepath": "8.wav", "text": "x", "take": 1e999}',
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
        "m.jsonl:11: snr_db is nan, not a finite number",
        "m.jsonl:12: take is inf, not a finite number",
        "6.wav stands there 2 times",
    ]


def test_half_of_a_surrogate_pair_is_refused_and_a_whole_one_is_a_character(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "m.jsonl",
        '{"id": "a", "text": "\\ud83d\\ude00 \\u00e9"}',
        '{"id": "b", "text": "h\\uD800i"}',
        '{"id": "c", "text": "x", "take\\udfff": 1}',
        '{"id": "d", "text": "x", "names": [{"a": "\\ude00\\ud83d"}]}',
    )
    told = "has half of a surrogate pair, which is no character"
    assert problems_of(path) == [
        f"m.jsonl:2: text {told}",
        f"m.jsonl:3: take\\udfff {told}",
        f"m.jsonl:4: names {told}",
    ]
    path.write_text(path.read_text().splitlines()[0])
    assert read_references(path)[0].text == "\N{GRINNING FACE} \u00e9"


def test_a_table_with_tabs_may_quote_its_cells_or_not(tmp_path: Path) -> None:
    path = lines(tmp_path / "m.tsv", "path\ttext", 'a.mp3\t"Oh," she said.', 'b.mp3\t"He said ""no"""')
    assert [row.text for row in read_references(path)] == ['"Oh," she said.', 'He said "no"']


def test_a_table_says_which_rows_have_other_columns(tmp_path: Path) -> None:
    path = lines(tmp_path / "m.csv", "id,text", "a,b", "c", "d,e,f", 'g,"h')
    problems = problems_of(path)
    assert problems[:2] == [f"m.csv:{number}: not as many columns as the first line names" for number in (3, 4)]
    assert "unexpected end of data" in problems[2]
