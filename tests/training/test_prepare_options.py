"""What the options of `prepare` change: which utterances are faulty, and what of them is a duplicate."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

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
