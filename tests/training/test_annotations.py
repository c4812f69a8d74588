"""Marks of transcribers are faults of a text, whatever it is normalised by; brackets that hold none are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.importers.record import Record
from training.inspection import Inspector


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "a.wav"
    soundfile.write(path, np.full(32_000, 0.25), 16_000)
    return path


@pytest.mark.parametrize("normalizer", ["transcript", "nfc"])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[noise] hello <unk> there [noise]", "[noise] <unk>"),
        ("good [laughter-morning]", "[laughter-morning]"),
        ("{F uh,} hello <SPOKEN NOISE>", "{F uh,} <SPOKEN NOISE>"),
        ("((hello)) there (( ))", "((hello)) (( ))"),
        ("!SIL hello !sil", "!SIL !sil"),
    ],
)
def test_annotations_are_named_once(audio: Path, text: str, found: str, normalizer: str) -> None:
    inspection = Inspector(normalizer=normalizer)(Record("a", audio, text, "", ""))
    assert [detail for reason, detail in inspection.faults if reason == "annotation"] == [found]


@pytest.mark.parametrize("text", ["hello (she said) wow!Sil", "less < or > more", "an [open one", "!silence", "[]"])
def test_other_signs_are_no_annotation(audio: Path, text: str) -> None:
    assert "annotation" not in dict(Inspector()(Record("a", audio, text, "", "")).faults)
