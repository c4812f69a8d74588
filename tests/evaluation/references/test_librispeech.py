"""References from LibriSpeech trees."""

from __future__ import annotations

from pathlib import Path

from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references import read_references
from tests.evaluation.references.manifests import lines, problems_of


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


def test_recordings_of_a_chapter_without_transcripts_are_problems_too(tmp_path: Path) -> None:
    lines(tmp_path / "dev" / "1" / "2" / "1-2.trans.txt", "1-2-0 YES")
    lines(tmp_path / "dev" / "1" / "3" / "1-3-0.flac")
    (problem,) = problems_of(tmp_path)
    assert problem.endswith("1/3/1-3-0.flac: not in a transcript beside it")
