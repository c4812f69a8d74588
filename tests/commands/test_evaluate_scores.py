"""`asr eval`: what is scored and what is written."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile

from asr_service.commands.option_types import NORMALIZERS
from asr_service.commands.score_lines import score_lines
from asr_service.evaluation import Output, Reference, Timing, normalizer, score, store
from asr_service.evaluation.bootstrap import wer_interval
from tests.commands.evaluations import Run, hypotheses


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
    digits = "'0' 1x, '1' 1x, '2' 1x, '3' 1x, '4' 1x and 1 more"
    dropped = f"asr eval: 6 references have characters that basic-1 drops ({digits})"
    assert told.err == f"{dropped}: these characters are left out, the rest is scored\n"
    lines = told.out.splitlines()
    assert lines[0] == "theirs"
    assert [line.split()[0] for line in lines[1:4]] == ["a", "b", "all"]
    assert all("basic-1" in line for line in lines[1:])
    assert all("bootstrap over utterances" in line for line in lines[1:4])
    assert f"S {counts[0]} D {counts[1]} I {counts[2]} of 6 words, 6 utterances" in lines[3]


def test_what_a_normaliser_drops_although_it_is_said_is_told(
    asr: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references = hypotheses(tmp_path / "said.jsonl", ("a", "ABOUT 1984 & 20% MORE!"), ("b", "caf\u00e9, naive"))
    hyp = hypotheses(tmp_path / "hyp.jsonl", ("a", "about more than 9"), ("b", "cafe naive"))
    of_references = "1 reference has characters that {} drops ('1' 1x, '9' 1x, '8' 1x, '4' 1x, '&' 1x and 3 more)"
    of_outputs = "1 output has characters that {} drops ('9' 1x)"
    for rule, label in (("basic", "basic-1"), ("librispeech", "librispeech-2")):
        assert asr("eval", references, "--hyp", hyp, "--normalizer", rule) == 0
        lines = capsys.readouterr().err.splitlines()
        expected = (line.format(label) for line in (of_references, of_outputs))
        assert lines == [f"asr eval: {line}: these characters are left out, the rest is scored" for line in expected]
    assert asr("eval", references, "--hyp", hyp, "--normalizer", "none") == 0
    assert capsys.readouterr().err == ""


def test_recordings_without_any_audio_have_no_speed() -> None:
    evaluation = score([Reference("0", "")], [Output("0", "", timing=Timing(0.01, audio_s=0.0))])
    assert not [line for line in score_lines(evaluation) if "RTFx" in line]


def test_the_lines_have_each_corpus_interval_speed_latency_and_gaps() -> None:
    references = [Reference(str(n), "a b", corpus="xy"[n % 2]) for n in range(20)]
    timings = [
        Timing(
            0.5,
            audio_s=5.0,
            first_partial_s=1.0,
            final_s=3.0,
            unaware_first_partial_s=0.5,
            unaware_final_s=2.5,
            word_latencies_s=(n / 5,),
            emitted_words=4,
            revoked_words=1,
            uncovered_s=(2.25,),
        )
        for n in range(20)
    ]
    texts = ["a" if n % 4 == 1 else "a b" for n in range(20)]
    outputs = [Output(str(n), text, timing=timing) for n, (text, timing) in enumerate(zip(texts, timings, strict=True))]
    evaluation = score(references, outputs)
    lines = list(score_lines(evaluation))
    whole = evaluation.wer_interval
    part = wer_interval([int(n % 4 == 1) for n in range(1, 20, 2)], [2] * 10, [""] * 10)
    assert [line.split()[0] for line in lines[:3]] == ["x", "y", "all"]
    assert "WER   0.00 % [0.00, 0.00]  S 0 D 0 I 0 of 20 words, 10 utterances" in lines[0]
    assert f"WER  25.00 % [{100 * part.low:.2f}, {100 * part.high:.2f}]  S 0 D 5 I 0 of 20 words" in lines[1]
    assert f"WER  12.50 % [{100 * whole.low:.2f}, {100 * whole.high:.2f}]  S 0 D 5 I 0 of 40 words" in lines[2]
    assert lines[4:] == [
        "RTFx 10.00: real-time factor 0.100 (100 s of audio in 10.0 s of computation)",
        (
            "first partial after its first word began: p50 1.00 s, p95 1.00 s; "
            "without computation p50 0.50 s, p95 0.50 s"
        ),
        "words after they ended: p50 1.90 s, p95 3.61 s",
        "last final after the audio ended: p50 3.00 s, p95 3.00 s; without computation p50 2.50 s, p95 2.50 s",
        "revoked 20 of 80 words shown",
        "speech without words over 2 s: 20 stretches, 45.0 s, 45.00 % of the audio",
    ]


def test_of_one_corpus_alone_all_is_not_told_again() -> None:
    references = [Reference(str(n), "a b", corpus="x") for n in range(3)]
    lines = list(score_lines(score(references, ["a"] * 3)))
    unnamed = list(score_lines(score(["a b"] * 3, ["a"] * 3)))
    assert [line.split()[0] for line in lines] == ["x", "CER"]
    assert [line.split()[0] for line in unnamed] == ["all", "CER"]
    assert lines[0].removeprefix("x  ") == unnamed[0].removeprefix("all")


def test_one_utterance_has_a_line_without_an_interval() -> None:
    lines = list(score_lines(score([Reference(str(n), "a b", corpus="xyy"[n]) for n in range(3)], ["a"] * 3)))
    assert lines[0].endswith("WER  50.00 %  S 0 D 1 I 0 of 2 words, 1 utterance; basic-1, no interval: one utterance")
    assert "WER  50.00 % [50.00, 50.00]  " in lines[1] and "no interval" not in lines[1] + lines[2]


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


def test_of_a_part_of_the_segments_the_words_of_the_others_are_not_scored(asr: Run, tmp_path: Path) -> None:
    stm, ctm, out = tmp_path / "a.stm", tmp_path / "a.ctm", tmp_path / "out.json"
    stm.write_text("".join(f"a 1 s {start} {start + 2} word {start}\n" for start in range(0, 8, 2)))
    ctm.write_text("".join(f"a 1 {start + 0.5} 0.5 word\na 1 {start + 1} 0.5 {start}\n" for start in range(0, 8, 2)))
    assert asr("eval", stm, "--hyp", ctm, "--normalizer", "none", "--json", out, "--every", "2") == 0
    scored = json.loads(out.read_text())
    assert {row["id"]: row["hypothesis"] for row in scored["results"]} == {"a-1-0-2": "word 0", "a-1-4-6": "word 4"}
    assert scored["wer"] == 0.0


@pytest.mark.parametrize(("costs", "alignment"), [("equal", "SS"), ("sclite", "DCI")])
def test_the_costs_of_the_alignment_are_those_asked_for(asr: Run, tmp_path: Path, costs: str, alignment: str) -> None:
    references, hyp = hypotheses(tmp_path / "ref.jsonl", ("u", "a b")), hypotheses(tmp_path / "hyp.jsonl", ("u", "b c"))
    out = tmp_path / "out.json"
    assert asr("eval", references, "--hyp", hyp, "--costs", costs, "--json", out) == 0
    written = json.loads(out.read_text())
    assert (written["costs"], written["results"][0]["alignment"]) == (costs, alignment)


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


def test_the_normalisers_of_the_command_are_those_there_are() -> None:
    assert set(NORMALIZERS) == set(normalizer.NORMALIZERS)
