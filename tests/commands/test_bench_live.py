"""`asr bench live` from manifest to table and JSON, against a server that hears tones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_service.cli import build_parser, main
from asr_service.commands import bench as bench_command
from asr_service.commands import bench_live
from asr_service.config import ServerSettings, Settings
from asr_service.evaluation.forced_alignment import AlignmentCache
from asr_service.evaluation.provenance import machine
from asr_service.model.digest import bundle_digest
from asr_service.server.app import ServerThread
from tests.bench.made_up import tone_clip
from tests.engine.conftest import make_tiny_bundle
from tests.fake_engine import FakeEngine


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options: a manifest of two recordings whose words are placed already, and a bundle that need not be loaded."""
    folder = tmp_path_factory.mktemp("tones")
    model = make_tiny_bundle(folder / "tiny")
    cache = AlignmentCache(folder / "alignments", bundle_digest(model))
    rows = []
    for clip in (tone_clip("one", 1, 0.16, 2), tone_clip("two", 3, 0.16, 4)):
        path = folder / f"{clip.reference.utterance_id}.wav"
        samples = np.frombuffer(clip.pcm, dtype="<i2")
        soundfile.write(path, samples, 16_000)
        cache.put(samples.astype(np.float32) / 32768, clip.reference.text, clip.words)
        rows.append({"audio_filepath": path.name, "duration": clip.duration_s, "text": clip.reference.text})
    (folder / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(folder / "set.jsonl"), "--model", str(model), "--alignments", str(folder / "alignments")]


def bench(options: list[str], *more: str) -> int:
    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0, grace_s=2.0))
    with ServerThread(settings, lambda: FakeEngine(max_streams=2)) as address:
        quick = ["--seconds", "0.8", "--stagger", "0.1"]
        return main(["bench", "live", *options, "--server", address, *quick, *more])


def test_each_number_of_streams_has_its_lines_and_its_place_in_the_json(tones, tmp_path, capsys):
    assert bench(tones, "--streams", "1,3", "--json", str(tmp_path / "b.json"), "--no-alone", "--channels", "N") == 0
    out = capsys.readouterr().out
    assert "1 stream for 0.8 s" in out and "2 held, 1 refused" in out and "basic-1" in out
    found = json.loads((tmp_path / "b.json").read_text())
    assert [(run["streams"], run["held"], run["refused"]) for run in found["runs"]] == [(1, 1, 0), (3, 2, 1)]
    assert found["about"]["model"] == "tones" and found["about"]["machine"]
    assert found["runs"][0]["quality"]["errors"] == 0


def test_a_ramp_prints_the_largest_number_that_held(tones, capsys):
    assert bench(tones, "--ramp", "--streams", "1", "--limit", "4", "--word-p95", "60") == 0
    out = capsys.readouterr().out
    assert "2 streams held; at 3 the objective broke" in out or "the generator was late" in out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--pid", "1"], "--pid is for --server"),
        (["--server", "localhost:1", "--config", "x.toml"], "--config has no effect with --server"),
        (["--metadata", "a=b"], "--metadata has no effect without --server"),
        (["--seconds", "1"], "--seconds must be longer than --stagger"),
        (["--streams", "0"], "must be 1 or more"),
        (["--streams", "1,x"], "argument --streams: must be numbers joined by commas, not '1,x'"),
        (["--channels", "x"], "argument --channels: must be a number or the letter N, not 'x'"),
        (["--streams", "1,2", "--channels", "3"], "--channels 3 is more than the streams there are, 2 at most"),
        (["--ramp", "--limit", "4", "--channels", "5"], "--channels 5 is more than the streams there are, 4 at most"),
        (["--seconds", "x"], "argument --seconds: must be a finite number, not x"),
        (["--message-ms", "2000"], "at most 1000"),
        *(
            ([option, value], f"argument {option}: must be a finite number, not {value}")
            for option in ("--seconds", "--pause", "--stagger", "--word-p95", "--worse-by")
            for value in ("nan", "inf")
        ),
    ],
)
def test_wrong_usage_is_told_before_anything_starts(options, problem, capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", "live", "set.jsonl", *options])
    assert left.value.code == 2
    assert problem in capsys.readouterr().err


def test_a_manifest_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["bench", "live", str(tmp_path / "none.jsonl"), "--alignments", str(Path(tmp_path))]) == 1
    assert "none.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "problem"),
    [([], "Failed to connect"), (["--tls", "--ca", "missing.pem"], "cannot read --ca missing.pem")],
)
def test_a_server_that_cannot_be_asked_is_told_before_clips_are_looked_for(options, problem, tmp_path, capsys):
    assert main(["bench", "live", str(tmp_path / "none.jsonl"), "--server", "localhost:1", *options]) == 1
    told = capsys.readouterr().err
    assert problem in told and "none.jsonl" not in told


def test_without_a_subcommand_the_figures_are_those_of_this_machine():
    plain = build_parser().parse_args(["bench", "--rounds", "2"])
    assert plain.run is bench_command.run and (plain.rounds, plain.streams) == (2, [1, 4, 16])
    live = build_parser().parse_args(["bench", "live", "set.jsonl", "--streams", "1,64"])
    assert live.run is bench_live.run and live.streams == [1, 64]


def test_without_a_subcommand_the_machine_is_named_as_in_evaluations(monkeypatch, capsys):
    for costly in ("_start_up", "_speed"):
        monkeypatch.setattr(bench_command, costly, lambda *_: None)
    assert main(["bench"]) == 0
    assert capsys.readouterr().out == f"machine             {machine()}; one thread\n"
