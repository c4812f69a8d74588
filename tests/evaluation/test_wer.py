from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr_service.errors import ConfigError
from asr_service.evaluation.manifest import read_references
from asr_service.evaluation.wer import WordErrors, confidence_interval, word_errors


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("THE CAT SAT", "the cat sat", WordErrors(0, 0, 0, 3)),
        ("the cat sat", "the hat sat down", WordErrors(1, 0, 1, 3)),
        ("the cat sat", "", WordErrors(0, 3, 0, 3)),
        ("", "two words", WordErrors(0, 0, 2, 0)),
        ("", "", WordErrors()),
        ("Don't, please!", "don't please", WordErrors(0, 0, 0, 2)),
    ],
)
def test_counts(reference: str, hypothesis: str, expected: WordErrors) -> None:
    assert word_errors(reference, hypothesis) == expected


def test_the_corpus_rate_is_errors_over_words_not_a_mean_of_rates() -> None:
    total = WordErrors(1, 0, 0, 1) + WordErrors(0, 0, 0, 9)
    assert total.rate == pytest.approx(0.1)
    assert WordErrors(insertions=1).rate == float("inf")
    assert WordErrors().rate == 0.0


def test_the_interval_holds_the_rate_is_repeatable_and_narrows_with_data() -> None:
    counts = [WordErrors(i % 4, 0, 0, 10) for i in range(40)]
    rate = sum(counts, WordErrors()).rate
    low, high = confidence_interval(counts)
    assert low < rate < high
    assert confidence_interval(counts) == (low, high)
    wide_low, wide_high = confidence_interval(counts[:8])
    assert wide_high - wide_low > high - low


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_audio_paths_are_relative_to_the_manifest_and_corpora_can_be_chosen(tmp_path: Path) -> None:
    manifest = write(
        tmp_path / "m.jsonl",
        {"audio_filepath": "a/1.wav", "text": "one", "corpus": "a", "duration": 1.5},
        {"audio_filepath": "b/2.wav", "text": "two", "corpus": "b"},
    )
    (reference,) = read_references(manifest, corpora=["a"])
    assert reference.audio_path == tmp_path / "a" / "1.wav"
    assert (reference.text, reference.duration_s) == ("one", 1.5)
    assert len(read_references(manifest)) == 2


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (["not json"], "m.jsonl:1"),
        ([{"audio_filepath": "1.wav", "text": "x"}, {"text": "y"}], "m.jsonl:2"),
        ([[1, 2]], "m.jsonl:1"),
        ([{"audio_filepath": "1.wav", "text": "x"}] * 2, "twice"),
        ([], "no utterance"),
    ],
)
def test_a_bad_manifest_names_its_line(tmp_path: Path, rows: list, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_references(write(tmp_path / "m.jsonl", *rows))


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.jsonl"):
        read_references(tmp_path / "gone.jsonl")
