"""`asr eval`: what is scored, what is refused, what is written."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile

from asr_service.cli import main
from asr_service.commands.evaluate import NORMALIZERS
from asr_service.commands.progress import shown
from asr_service.config import ServerSettings, Settings
from asr_service.engine.engine import BatchingEngine
from asr_service.evaluation import normalizer, store
from asr_service.evaluation.by_server import ByServer
from asr_service.evaluation.in_process import InProcess
from asr_service.evaluation.output import Output
from asr_service.evaluation.reference import Reference
from asr_service.model.bundle import load_bundle
from asr_service.server.app import ServerThread
from tests.engine.conftest import make_tiny_bundle
from tests.fake_engine import say

Run = Callable[..., int]


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    """Six recordings of two corpora; the text of each is what one would say."""
    rows = []
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", say(number, 0.2, number + 1, 0.3), 16_000)
        rows.append({"audio_filepath": f"{number}.wav", "text": f"Word {number}", "corpus": "ab"[number % 2]})
    manifest = tmp_path / "test.jsonl"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return manifest


@pytest.fixture
def asr(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: object) -> int:
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["asr", *words])
        return main(words)

    return run


@pytest.fixture
def server(bundle_dir: Path) -> Iterator[str]:
    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0))
    with ServerThread(settings, lambda: BatchingEngine(load_bundle(bundle_dir), settings.engine)) as address:
        yield address


def hypotheses(path: Path, *rows: tuple[str, str]) -> Path:
    path.write_text("".join(f"{json.dumps({'id': name, 'text': text})}\n" for name, text in rows))
    return path


def without_times(path: Path) -> Any:
    """An evaluation less what differs from run to run: its times, and when and how it was made."""
    document = json.loads(path.read_text())
    for name in ("about", "rtfx", "latency", "system"):
        del document[name]
    for row in document["results"]:
        del row["timing"]
    return document


def test_the_output_of_another_system_is_scored_as_jiwer_does(
    asr: Run, test_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = ["word", "word", "world", "a word", "", "word word"]
    hyp = hypotheses(tmp_path / "hyp.jsonl", *((f"{number}.wav", text) for number, text in enumerate(heard)))
    out = tmp_path / "out.json"
    assert asr("eval", test_set, "--hyp", hyp, "--json", out, "--name", "theirs") == 0
    told = capsys.readouterr()
    document = json.loads(out.read_text())
    expected = jiwer.process_words(["word"] * 6, heard)
    assert document["wer"] == expected.wer
    assert document["system"] == "theirs"
    assert document["rtfx"] is None
    assert document["about"]["hypotheses_hash"] == f"sha256:{hashlib.sha256(hyp.read_bytes()).hexdigest()}"
    counts = (document["substitutions"], document["deletions"], document["insertions"], document["reference_words"])
    assert counts == (expected.substitutions, expected.deletions, expected.insertions, 6)
    assert store.load(out).wer == expected.wer
    assert told.err == ""
    lines = told.out.splitlines()
    assert lines[0] == "theirs"
    assert [line.split()[0] for line in lines[1:4]] == ["a", "b", "all"]
    assert all("basic-1" in line for line in lines[1:])
    assert all("bootstrap over utterances" in line for line in lines[1:4])
    assert f"S {counts[0]} D {counts[1]} I {counts[2]} of 6 words, 6 utterances" in lines[3]


def test_an_evaluation_scored_anew_says_what_recognised_it(
    asr: Run, test_set: Path, bundle_dir: Path, tmp_path: Path
) -> None:
    first, anew = tmp_path / "first.json", tmp_path / "anew.json"
    assert asr("eval", test_set, "--model", bundle_dir, "--json", first) == 0
    assert asr("eval", test_set, "--hyp", first, "--normalizer", "none", "--json", anew) == 0
    before, after = (json.loads(path.read_text()) for path in (first, anew))
    assert after["normalizer"] == "none-1" and after["rtfx"] == before["rtfx"]
    assert after["about"]["model_hash"] == before["about"]["model_hash"]
    assert after["about"]["recognition_command"] == before["about"]["command"] != after["about"]["command"]


def test_of_a_part_of_the_test_set_the_outputs_of_that_part_are_scored(
    asr: Run, test_set: Path, tmp_path: Path
) -> None:
    hyp = hypotheses(tmp_path / "hyp.jsonl", *((f"{number}.wav", "word") for number in range(6)))
    out = tmp_path / "out.json"
    assert asr("eval", test_set, "--hyp", hyp, "--json", out, "--corpus", "b", "--every", "2") == 0
    assert [row["id"] for row in json.loads(out.read_text())["results"]] == ["1.wav", "5.wav"]


def test_the_report_is_written(asr: Run, test_set: Path, tmp_path: Path) -> None:
    hyp = hypotheses(tmp_path / "hyp.jsonl", *((f"{number}.wav", "wordle") for number in range(6)))
    assert asr("eval", test_set, "--hyp", hyp, "--html", tmp_path / "report.html", "--audio") == 0
    page = (tmp_path / "report.html").read_text()
    assert "wordle" in page and "basic-1" in page and "data:audio" in page


def test_results_have_the_signal_to_noise_ratio_that_the_recordings_suggest(
    asr: Run, test_set: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    envelope = np.repeat([1.0, 0.0], [24_000, 8_000])  # half a second's pause
    noisy = 0.1 * envelope * rng.normal(size=32_000) + 0.01 * rng.normal(size=32_000)  # 20 dB
    soundfile.write(test_set.parent / "0.wav", noisy, 16_000)
    hyp = hypotheses(tmp_path / "hyp.jsonl", *((f"{number}.wav", "wordle") for number in range(6)))
    assert asr("eval", test_set, "--hyp", hyp, "--json", tmp_path / "out.json") == 0
    rows = json.loads((tmp_path / "out.json").read_text())["results"]
    assert rows[0]["fields"]["snr_db"] == pytest.approx(20.0, abs=3.0)


@pytest.mark.parametrize(
    ("rows", "problems"),
    [
        ([("0.wav", "a")], [f"{number}.wav" for number in range(1, 6)]),
        ([(f"{number}.wav", "a") for number in range(6)] + [("7.wav", "a"), ("8.wav", "a")], ["7.wav", "8.wav"]),
        ([(f"{number}.wav", "a") for number in (0, 1, 1, 2, 3, 4, 5)], ["1.wav"]),
    ],
    ids=["missing", "unknown", "twice"],
)
def test_ids_that_do_not_match_are_listed_and_nothing_is_scored(
    asr: Run,
    test_set: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[tuple[str, str]],
    problems: list[str],
) -> None:
    out = tmp_path / "out.json"
    assert asr("eval", test_set, "--hyp", hypotheses(tmp_path / "hyp.jsonl", *rows), "--json", out) == 2
    told = capsys.readouterr()
    assert told.out == "" and not out.exists()
    lines = told.err.splitlines()
    assert len(lines) == len(problems)
    assert all(problem in line for problem, line in zip(problems, lines, strict=True))


def test_missing_audio_is_listed_before_anything_is_recognised(
    asr: Run, test_set: Path, bundle_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InProcess, "recognise", lambda self, reference: pytest.fail("recognised"))
    for name in ("1.wav", "4.wav"):
        (test_set.parent / name).unlink()
    assert asr("eval", test_set, "--model", bundle_dir) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert [name for line in told.err.splitlines() for name in ("1.wav", "4.wav") if name in line] == ["1.wav", "4.wav"]


def test_an_id_in_two_manifests_and_a_time_that_is_no_number_are_listed(
    asr: Run, test_set: Path, tmp_path: Path, bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(
        '{"audio_filepath": "2.wav", "text": "a"}\n{"audio_filepath": "9.wav", "text": "a", "offset": NaN}\n'
    )
    assert asr("eval", test_set, other, "--model", bundle_dir) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any("2.wav" in line for line in lines) and any("offset" in line for line in lines)


@pytest.mark.parametrize("mode", ["accurate", "streaming"])
def test_in_process_and_through_a_server_the_score_is_the_same(
    asr: Run, test_set: Path, bundle_dir: Path, tmp_path: Path, server: str, mode: str
) -> None:
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    assert asr("eval", test_set, "--mode", mode, "--model", bundle_dir, "--json", here) == 0
    assert asr("eval", test_set, "--mode", mode, "--server", server, "--json", there) == 0
    ours, theirs = without_times(here), without_times(there)
    for row in [*ours["results"], *theirs["results"]]:
        del row["words"]  # their times are milliseconds on the wire
    assert ours == theirs
    hashes = {json.loads(path.read_text())["about"]["model_hash"] for path in (here, there)}
    assert len(hashes) == 1 and None not in hashes
    assert any(row["hypothesis"] for row in ours["results"])


@pytest.mark.slow
@pytest.mark.timeout(600)  # each process imports torch
@pytest.mark.parametrize("spread", [["--jobs", "2"], ["--ray"], ["--ray", "--jobs", "3"]], ids=" ".join)
def test_however_the_work_is_spread_the_score_is_the_same_to_the_last_digit(
    asr: Run, test_set: Path, bundle_dir: Path, tmp_path: Path, spread: list[str]
) -> None:
    if "--ray" in spread:
        pytest.importorskip("ray")
    alone, shared = tmp_path / "alone.json", tmp_path / "shared.json"
    command = ["eval", test_set, "--mode", "streaming", "--model", bundle_dir, "--json"]
    assert asr(*command, alone) == 0
    assert asr(*command, shared, *spread) == 0
    assert without_times(alone) == without_times(shared)


def test_streaming_tells_its_latency_and_what_made_the_score(
    asr: Run, test_set: Path, bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    command = ["eval", str(test_set), "--mode", "streaming", "--model", str(bundle_dir), "--json", str(out), "--no-lm"]
    assert asr(*command) == 0
    document = json.loads(out.read_text())
    about = document["about"]
    assert about["command"] == shlex.join(["asr", *command])
    assert about["model_hash"].startswith("sha256:") and len(about["model_hash"]) == 71
    assert about["model"] == "tiny" and about["mode"] == "streaming" and about["language_model"] == "none"
    assert document["system"] == "tiny, streaming, without language model"
    assert about["machine"].endswith("cores") and about["date"].endswith("+00:00")
    assert document["rtfx"] > 0
    assert document["latency"]["word"]["p50"] > document["latency"]["unaware_word"]["p50"]
    told = capsys.readouterr()
    for line in (
        "RTFx ",
        "first partial ",
        "words after they ended",
        "last final ",
        "revoked ",
        "speech without words",
    ):
        assert any(found.startswith(line) for found in told.out.splitlines()), line


def test_utterances_that_fail_are_listed_kept_apart_and_tried_again(
    asr: Run, test_set: Path, bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, journal = tmp_path / "out.json", tmp_path / "out.json.journal"
    good = (tmp_path / "3.wav").read_bytes()
    (tmp_path / "3.wav").write_bytes(b"")
    command = ["eval", test_set, "--model", bundle_dir, "--json", out]
    assert asr(*command) == 2
    told = capsys.readouterr()
    assert told.out == "" and not out.exists()
    assert [line.split(": ")[1] for line in told.err.splitlines()] == ["3.wav"]
    assert len(journal.read_text().splitlines()) == 1 + 5
    (tmp_path / "3.wav").write_bytes(good)
    assert asr(*command) == 0
    assert "5 utterances are in" in capsys.readouterr().err
    assert not journal.exists() and len(json.loads(out.read_text())["results"]) == 6


def test_a_journal_of_another_system_is_refused(
    asr: Run, test_set: Path, bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "3.wav").write_bytes(b"")
    command = ["eval", test_set, "--model", bundle_dir, "--journal", tmp_path / "kept"]
    assert asr(*command) == 2
    capsys.readouterr()
    assert asr(*command, "--no-lm") == 1
    assert "language_model was the bundle's, is none" in capsys.readouterr().err
    assert asr(*command, "--every", "2") == 1
    assert "test_set was" in capsys.readouterr().err


def test_a_time_that_is_not_finite_is_refused(
    asr: Run,
    test_set: Path,
    bundle_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from asr_service.evaluation.output import Timing

    def recognise(self: InProcess, reference: Reference) -> Output:
        return Output(reference.utterance_id, "a", (), Timing(float("nan"), 1.0))

    monkeypatch.setattr(InProcess, "recognise", recognise)
    assert asr("eval", test_set, "--model", bundle_dir, "--json", tmp_path / "out.json") == 2
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 6 and all("not finite" in line for line in told.err.splitlines())
    assert told.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--hyp", "h.jsonl", "--mode", "streaming"],
        ["--hyp", "h.jsonl", "--jobs", "2"],
        ["--hyp-format", "ctm"],
        ["--server", "localhost:1", "--model", "m"],
        ["--server", "localhost:1", "--no-lm"],
        ["--real-time"],
        ["--audio"],
        ["--latency", "low"],
        ["--mode", "accurate", "--chunk-frames", "8"],
        ["--mode", "streaming", "--latency", "none"],
        ["--server", "localhost:1", "--real-time"],
        ["--every", "0"],
        ["--jobs", "-1"],
        ["--normalizer", "loud"],
    ],
)
def test_options_that_would_have_no_effect_are_wrong_usage(asr: Run, test_set: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        asr("eval", test_set, *arguments)
    assert ended.value.code == 2


def test_a_server_that_is_not_there_is_one_line(asr: Run, test_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asr("eval", test_set, "--server", "localhost:1") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_through_a_server_at_a_microphones_pace(
    asr: Run, test_set: Path, server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paced: list[bool] = []
    recognise = ByServer.recognise

    def note(self: ByServer, reference: Reference) -> Output:
        paced.append(self._system.real_time)
        return recognise(self, reference)

    monkeypatch.setattr(ByServer, "recognise", note)
    assert asr("eval", test_set, "--server", server, "--mode", "streaming", "--real-time", "--every", "5") == 0
    assert paced == [True, True]
    told = capsys.readouterr().out
    assert "last final after the audio ended" in told and "RTFx" not in told and "without computation" not in told


def test_the_normalisers_of_the_command_are_those_there_are() -> None:
    assert set(NORMALIZERS) == set(normalizer.NORMALIZERS)


COMMAND = "import sys; from asr_service.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_command_that_was_killed_goes_on_to_the_same_score(
    asr: Run, test_set: Path, bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out, journal = tmp_path / "whole.json", tmp_path / "out.json", tmp_path / "out.json.journal"
    command = ["eval", str(test_set), "--mode", "streaming", "--model", str(bundle_dir), "--json"]
    killed = subprocess.Popen([sys.executable, "-c", COMMAND, *command, str(out)], stdout=subprocess.DEVNULL)
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        assert killed.poll() is None
        time.sleep(0.001)
    killed.kill()
    assert killed.wait() == -9 and not out.exists()
    assert asr(*command, out) == 0
    assert "utterances are in" in capsys.readouterr().err
    assert asr(*command, whole) == 0
    assert without_times(out) == without_times(whole)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (Terminal(), "\r\033[K1 of 3, 1:20 left\r\033[K2 of 3, 0:40 left\r\033[K3 of 3, 0:00 left\r\033[K"),
        (io.StringIO(), "2 of 3, 0:40 left\n"),
    ],
    ids=["terminal", "log"],
)
def test_progress_is_one_line_on_a_terminal_and_a_line_now_and_then_in_a_log(
    stream: io.StringIO, expected: str
) -> None:
    times = iter(range(0, 1000, 40))
    assert list(shown("abc", 3, "items", stream=stream, clock=lambda: float(next(times)))) == list("abc")
    assert stream.getvalue().replace(" items", "") == expected
