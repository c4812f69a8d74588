"""What the options of `prepare` change: which utterances are faulty, and what of them is a duplicate."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_service.evaluation.references import read_references
from training import prepare
from training.importers.native import read_native
from training.inspection import REASONS, Inspector

RATE = 16_000


def manifest_of(folder: Path, *rows: dict[str, object]) -> Path:
    """Each row of another second of noise."""
    for seed, row in enumerate(rows):
        pcm = np.random.default_rng(seed).uniform(-0.5, 0.5, RATE).astype(np.float32)
        soundfile.write(folder / str(row["audio_filepath"]), pcm, RATE)
    path = folder / "in.jsonl"
    path.write_text("\n".join(json.dumps({"duration": 1.0, "corpus": "c", **row}) for row in rows))
    return path


def prepared(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> bool:
    """Whether the manifest was written."""
    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments), "--workers", "1"])
    with contextlib.suppress(SystemExit):
        prepare.main()
        return True
    return False


@pytest.mark.parametrize(
    ("text", "options", "good"),
    [
        ("Привет, мир", (), False),
        ("Привет, мир", ("--normalizer", "nfc"), True),
        ("a" * 40, (), False),
        ("a" * 40, ("--max-chars-per-second", "40"), True),
        ("ab", ("--min-chars-per-second", "3"), False),
    ],
)
def test_what_is_a_fault_follows_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, options: tuple[str, ...], good: bool
) -> None:
    manifest = manifest_of(tmp_path, {"audio_filepath": "a.wav", "text": text})
    assert prepared(monkeypatch, "--from", "manifest", manifest, "--out", tmp_path / "o.jsonl", *options) == good


@pytest.mark.parametrize(
    "options",
    [
        ("--max-chars-per-second", "nan"),
        ("--min-chars-per-second", "nan"),
        ("--min-chars-per-second", "-1"),
        ("--min-chars-per-second", "31"),
    ],
)
def test_limits_that_are_none_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    manifest = manifest_of(tmp_path, {"audio_filepath": "a.wav", "text": "hello"})
    assert not prepared(monkeypatch, "--from", "manifest", manifest, "--out", tmp_path / "o.jsonl", *options)
    told = capsys.readouterr().err.splitlines()[-1]
    assert options[0] in told and f"{float(options[1]):g}" in told and "must be 0 or more, in order" in told
    assert not (tmp_path / "o.report.json").exists()


def test_what_was_written_and_what_is_refused_is_named_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "o.jsonl", tmp_path / "o.report.json"
    clean = manifest_of(tmp_path, {"audio_filepath": "a.wav", "text": "hello"})
    assert prepared(monkeypatch, "--from", "manifest", clean, "--out", out)
    assert capsys.readouterr().out.splitlines() == [
        "kept: 1 utterance, 0.00 h",
        "dropped: 0 utterances, 0.00 h",
        "undecided: 0 utterances, 0.00 h",
        f"{out}: 1 utterance; {report} is the report",
    ]
    faulty = manifest_of(tmp_path, {"audio_filepath": "a.wav", "text": ""})
    assert not prepared(monkeypatch, "--from", "manifest", faulty, "--out", out)
    printed = capsys.readouterr()
    assert printed.out.startswith("reason") and f"the reasons above; {report} names each" in printed.err


def test_further_fields_and_a_corpus_that_a_line_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = manifest_of(tmp_path, {"audio_filepath": "a.wav", "text": "hello", "emotion": "calm"})
    out = tmp_path / "o.jsonl"
    assert prepared(monkeypatch, "--from", "manifest", manifest, "--out", out, "--corpus", "other")
    row = json.loads(out.read_text())
    assert (row["emotion"], row["corpus"]) == ("calm", "c")


def test_relative_audio_of_a_kaldi_folder_is_below_the_root_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    manifest_of(audio, {"audio_filepath": "a.wav", "text": ""})
    for name, line in (("wav.scp", "u a.wav"), ("text", "u hello"), ("utt2spk", "u anna")):
        (tmp_path / name).write_text(f"{line}\n")
    out = tmp_path / "o.jsonl"
    assert prepared(monkeypatch, "--from", "kaldi", tmp_path, "--out", out, "--audio-root", audio)
    assert json.loads(out.read_text())["audio_filepath"] == "audio/a.wav"


def write_kaldi(folder: Path) -> Path:
    """A meeting in which two people begin to speak at the same time."""
    manifest_of(folder, {"audio_filepath": "long.wav", "text": ""})
    files = {
        "wav.scp": f"rec {folder}/long.wav\n",
        "segments": "ann-1 rec 0.25 0.75\nbob-1 rec 0.25 0.95\n",
        "text": "ann-1 hello\nbob-1 hi there\n",
        "utt2spk": "ann-1 ann\nbob-1 bob\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def write_native(folder: Path) -> Path:
    """The same meeting."""
    manifest_of(folder, {"audio_filepath": "long.wav", "text": ""})
    part = {"audio_filepath": "long.wav", "offset": 0.25}
    rows = [
        {"utterance_id": "ann-1", "speaker": "ann", "text": "hello", "duration": 0.5, **part},
        {"id": "bob-1", "speaker": "bob", "text": "hi there", "duration": 0.7, **part},
    ]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "in.jsonl"


@pytest.mark.parametrize(("source", "write"), [("kaldi", write_kaldi), ("manifest", write_native)])
def test_who_speaks_at_the_same_time_keeps_the_id_that_the_corpus_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, write: Callable[[Path], Path]
) -> None:
    out = tmp_path / "out" / "train.jsonl"
    assert prepared(monkeypatch, "--from", source, write(tmp_path), "--out", out, "--corpus", "meeting")
    assert [reference.utterance_id for reference in read_references(out)] == ["ann-1", "bob-1"]
    again = tmp_path / "again.jsonl"
    assert prepared(monkeypatch, "--from", "manifest", out, "--out", again)
    assert [json.loads(line)["id"] for line in again.read_text().splitlines()] == ["ann-1", "bob-1"]


def test_an_id_that_stands_twice_is_a_duplicate_and_so_is_audio_under_another_id(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"audio_filepath": f"{n}.wav", "text": "hello", "id": n // 2} for n in range(2)]
    manifest = manifest_of(tmp_path, *rows, {"audio_filepath": "2.wav", "text": "hello", "id": "b"})
    manifest.write_text(f"{manifest.read_text()}\n{json.dumps({**rows[0], 'duration': 1.0, 'id': 'c', 'corpus': 'c'})}")
    verdicts = prepare.judge(map(Inspector(), read_native(manifest)), drop=(), keep=())
    found = [[reason for reason, _ in verdict.faults] for verdict in verdicts]
    assert found == [[], ["duplicate_id"], [], ["duplicate_audio"]]


def test_a_text_that_no_file_can_hold_is_refused_by_its_line_before_audio_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "in.jsonl"
    manifest.write_text('{"audio_filepath": "none.wav", "duration": 1, "text": "h\\ud800i"}\n')
    assert not prepared(monkeypatch, "--from", "manifest", manifest, "--out", tmp_path / "o.jsonl")
    told = "text has half of a surrogate pair, which is no character"
    assert capsys.readouterr().err.splitlines() == [f"prepare: {manifest}:1: {told}"]


def test_hours_are_those_of_the_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"audio_filepath": f"{n}.wav", "text": f"take {word}"} for n, word in enumerate(("one", "two", "three"))]
    manifest = manifest_of(tmp_path, *rows)
    assert prepared(monkeypatch, "--from", "manifest", manifest, "--out", tmp_path / "o.jsonl")
    report = json.loads((tmp_path / "o.report.json").read_text())
    assert report["outcomes"]["kept"] == {"utterances": 3, "hours": round(3 / 3600, 4)}


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"speaker": "s"}, ["duplicate_text"]),
        ({"speaker": ""}, []),
        ({"speaker": "s", "text": "one by two"}, []),
        ({"speaker": "s", "corpus": "d"}, ["duplicate_text"]),
    ],
)
def test_the_same_words_are_no_duplicate_where_nobody_knows_who_said_them(
    tmp_path: Path, fields: dict[str, object], found: list[str]
) -> None:
    first = {"audio_filepath": "a.wav", "text": "One by one", "speaker": fields["speaker"]}
    manifest = manifest_of(tmp_path, first, {**first, "audio_filepath": "b.wav", **fields})
    verdicts = prepare.judge(map(Inspector(), read_native(manifest)), drop=frozenset(REASONS), keep=())
    assert [[reason for reason, _ in verdict.faults] for verdict in verdicts] == [[], found]


def test_an_id_may_be_there_once_in_each_corpus(tmp_path: Path) -> None:
    row: dict[str, object] = {"audio_filepath": "a.wav", "text": "hello"}
    manifest = manifest_of(tmp_path, row, row | {"corpus": "d"})
    verdicts = prepare.judge(map(Inspector(), read_native(manifest)), drop=(), keep=())
    assert [[reason for reason, _ in verdict.faults] for verdict in verdicts] == [[], ["duplicate_audio"]]
