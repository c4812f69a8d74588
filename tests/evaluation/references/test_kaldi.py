"""References from Kaldi's data directories."""

from __future__ import annotations

from pathlib import Path

from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references import read_references
from tests.evaluation.references.manifests import Rows, lines, problems_of


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
    remedy = "and no command is run here: write the audio to files first, for example with Kaldi's wav-copy"
    assert problems_of(folder) == [
        "k/text:2: u1 stands there twice",
        f"k/wav.scp: r is the output of a command, {remedy}",
        "k/wav.scp: q is 'x.ark:17', not an audio file",
        "k/segments: u4 is not in text",
        "k/utt2spk: u6 has no speaker",
        "k: u2: the recording s is not in wav.scp",
        "k: u3: its segment 2 to 1 s is empty or runs backwards",
        "k: u5: it has a text, but segments lacks it",
        "k: u6: its begin in segments is 'nan', not a number of seconds from 0 on",
    ]
