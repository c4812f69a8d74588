"""`asr eval`: what is refused is listed, all of it, and nothing is scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from asr_service.evaluation.in_process import InProcess
from asr_service.evaluation.output import Output
from asr_service.evaluation.reference import Reference
from tests.commands.evaluations import Run, hypotheses


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


@pytest.mark.parametrize(("options", "more"), [([], ""), (["--no-lm"], ": --no-lm has no effect")])
def test_a_bundle_without_an_n_gram_is_told(
    asr: Run,
    test_set: Path,
    bundle_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    more: str,
) -> None:
    bundle, out = shutil.copytree(bundle_dir, tmp_path / "bare"), tmp_path / "out.json"
    (bundle / "lm.kenlm").unlink()
    assert asr("eval", test_set, "--every", "5", "--model", bundle, "--json", out, *options) == 0
    told = capsys.readouterr().err.splitlines()
    assert told.count(f"asr eval: the bundle tiny has no n-gram (lm.kenlm){more}") == 1
    assert json.loads(out.read_text())["about"]["language_model"] == "none (the bundle has no n-gram)"


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
