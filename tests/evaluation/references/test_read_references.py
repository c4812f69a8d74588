"""Whatever the format: several manifests, corpora, what cannot be read, formats by name, audio that is missing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from asr_service.errors import ConfigError
from asr_service.evaluation.problems import ManifestProblems, wrong_times
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references import FORMATS, format_of, read_references
from tests.evaluation.references.manifests import lines, problems_of


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


def test_all_that_is_wrong_is_told_in_whichever_order_the_manifests_come(tmp_path: Path) -> None:
    bad, empty = lines(tmp_path / "bad.trn", "no id"), lines(tmp_path / "empty.trn")
    told: list[set[str]] = []
    for manifests in ([bad, empty], [empty, bad]):
        with pytest.raises(ManifestProblems) as caught:
            read_references(manifests)
        told.append(set(caught.value.problems))
    assert len(told[0]) == 2 and told[0] == told[1]


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
