"""References from lhotse's cuts."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references import read_references
from tests.evaluation.references.manifests import Rows, lines, problems_of, two_parts


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


def test_cuts_are_read_back(tmp_path: Path) -> None:
    rows = two_parts(tmp_path)
    assert read_references(write_lhotse(tmp_path, rows)) == rows


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
        ({"custom": {"snr": math.nan}}, "snr is nan, not a finite number"),
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


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"start": -0.9}, "supervision u lasts 2 s, 0.9 s of them outside the cut"),
        ({"start": 8.5}, "supervision u lasts 2 s, 1.5 s of them outside the cut"),
        ({"start": math.nan}, "a supervision's start is nan, not a number of seconds"),
        ({"start": "soon"}, "a supervision's start is 'soon', not a number of seconds"),
        ({"text": 5}, "a supervision's text is 5, not a text"),
        ({"text": ["one"]}, "a supervision's text is ['one'], not a text"),
        ({"speaker": 7}, "a supervision's speaker is 7, not a text"),
    ],
)
def test_supervisions_that_the_cut_cuts_off_or_that_are_none_are_problems(
    tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    path = write_lhotse(tmp_path, [Reference("u", "x", tmp_path / "r.wav", 1.0, 2.0, "ann", "set")])
    cut = json.loads(gzip.decompress(path.read_bytes()))
    cut["supervisions"][0] |= change
    assert problems_of(lines(tmp_path / "cuts.jsonl", json.dumps(cut))) == [f"cuts.jsonl:1: {problem}"]


def test_what_a_cut_leaves_out_by_rounding_is_no_loss(tmp_path: Path) -> None:
    path = write_lhotse(tmp_path, [Reference("u", "x", tmp_path / "r.wav", 1.0, 2.0, "ann", "set")])
    cut = json.loads(gzip.decompress(path.read_bytes()))
    cut["supervisions"][0] |= {"start": -0.05}
    (reference,) = read_references(lines(tmp_path / "cuts.jsonl", json.dumps(cut)))
    assert (reference.offset_s, reference.duration_s) == (0.5, 1.95)
