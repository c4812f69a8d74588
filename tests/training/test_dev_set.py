"""What a search is tuned on: the utterances that the options choose, and refusals that say why there are none."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr_service.decoding.config import DecodingConfig
from asr_service.engine.runner import Encoded
from asr_service.model.bundle import load_bundle
from asr_service.types import Mode
from tests.training.conftest import Corpus
from training import (
    calibrate,
    distort,
    hints_report,
    lm,
    neural_lm,
    prepare,
    stability,
    tokenizer,
    tune_decoding,
    tune_recipe,
)
from training.data import PcmStore, Utterance
from training.dev_set import add_dev_options, dev_set
from training.posteriors import DevUtterance, posteriors
from training.ranking import FEATURES
from training.tune_decoding import Candidate, report_ranking

CORPORA = ("librispeech_clean", "own", "librispeech_other", "own", "", "other")


@pytest.fixture
def speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A speech folder whose dev.jsonl has six recordings, of which the fourth cannot be decoded."""
    monkeypatch.setenv("ASR_SPEECH_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    rows = []
    for number, corpus in enumerate(CORPORA):
        soundfile.write(tmp_path / f"{number}.wav", np.full(800, 0.1), 16_000)
        rows.append({"audio_filepath": f"{number}.wav", "duration": 0.05, "text": "the sea", "corpus": corpus})
    (tmp_path / "3.wav").write_bytes(b"RIFF")
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def chosen(*options: object) -> list[int]:
    parser = argparse.ArgumentParser()
    add_dev_options(parser, every=1)
    return dev_set(parser.parse_args(list(map(str, options))))[2]


def test_without_options_it_is_librispeech_in_the_speech_folder_else_what_is_named(speech: Path) -> None:
    manifest = speech / "dev.jsonl"
    assert chosen() == [0, 2]
    assert chosen("--every", 2) == [0]
    assert chosen("--corpus", "other", "--corpus", "librispeech_clean") == [0, 5]
    assert chosen("--manifest", manifest) == [0, 1, 2, 4, 5]
    assert chosen("--manifest", manifest, "--corpus", "own") == [1]


def test_texts_that_are_not_spelled_out_are_left_out(speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in (speech / "dev.jsonl").read_text().splitlines()]
    rows[2]["text"] = "20,000 leagues under the sea"
    (speech / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert chosen() == [0]
    assert "dev.jsonl: 1 of 2 texts are not spelled out" in capsys.readouterr().out


def test_an_empty_choice_is_refused_with_manifest_and_corpora(speech: Path) -> None:
    with pytest.raises(
        ValueError, match=r"dev\.jsonl: no utterance of an4; its corpora, for --corpus: \(no name\), libri.*, own$"
    ):
        chosen("--corpus", "an4")
    with pytest.raises(ValueError, match=r"dev\.jsonl: no utterance of typo; its corpora"):
        chosen("--corpus", "own", "--corpus", "typo")
    (speech / "dev.jsonl").write_text('{"audio_filepath": "1.wav", "duration": 0.05, "text": "", "corpus": "own"}\n')
    with pytest.raises(ValueError, match=r"dev\.jsonl: no utterance of librispeech\*; its corpora, for --corpus: own$"):
        chosen()
    with pytest.raises(ValueError, match=r"no utterance of own has both audio and words"):
        chosen("--corpus", "own")


def test_posteriors_are_kept_for_the_same_audio_alone(corpus: Corpus, bundle_dir: Path, tmp_path: Path) -> None:
    bundle, rows, kept = load_bundle(bundle_dir), [0], tmp_path / "kept"
    for _ in range(2):
        posteriors(bundle, corpus.utterances, corpus.store, rows, Mode.ACCURATE, kept)
    assert len(list(kept.iterdir())) == 1
    reversed_store = PcmStore.build(corpus.utterances[::-1], tmp_path / "reversed", workers=1)
    posteriors(bundle, corpus.utterances[::-1], reversed_store, rows, Mode.ACCURATE, kept)
    assert len(list(kept.iterdir())) == 2
    mixed = dataclasses.replace(bundle, decoding=bundle.decoding | {"lower_phones": 0.5})
    posteriors(mixed, corpus.utterances, corpus.store, rows, Mode.ACCURATE, kept)
    assert len(list(kept.iterdir())) == 3


def test_posteriors_of_a_recording_that_was_replaced_are_made_anew(bundle_dir: Path, tmp_path: Path) -> None:
    utterance = Utterance(tmp_path / "a.wav", 1.0, "the sea", "s", "c")
    frames = []
    for seconds in (1, 2):
        soundfile.write(utterance.path, np.zeros(16_000 * seconds), 16_000)
        store = PcmStore.build([utterance], tmp_path / "store", workers=1)
        (found,) = posteriors(load_bundle(bundle_dir), [utterance], store, [0], Mode.ACCURATE, tmp_path / "kept")
        frames.append(len(found.encoded.phones))
    assert frames[1] > 1.5 * frames[0]


def test_what_is_tuned_is_printed_as_the_bundles_config_has_it(
    speech: Path, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = []

    def first_pass(tree, dev, options) -> tuple[float, float]:
        heard.append(dev[0].encoded.phones)
        return abs(options.lm_weight - 1.1) + float(np.abs(heard[-1] - heard[0]).mean()), 0.0

    monkeypatch.setattr(tune_decoding, "first_pass", first_pass)
    command = f"tune_decoding --bundle {bundle_dir} --manifest {speech / 'dev.jsonl'} --only-first-pass"
    monkeypatch.setattr(sys, "argv", command.split())
    tune_decoding.main()
    *told, where, found = capsys.readouterr().out.splitlines()
    shares = [line.split() for line in told[told.index("lower_phones       WER") + 1 :] if line]
    assert [share for share, *_ in shares[:4]] == ["0.0", "0.1", "0.2", "0.3"]
    rates = [float(rate) for _, rate, _ in shares[:4]]
    assert rates == sorted(rates) and rates[0] < rates[1] < rates[3]
    assert str(bundle_dir / "config.json") in where
    assert json.loads(found) == {"decoding": {"accurate": {"lm_weight": 1.1, "word_score": -1.0}}}


def test_stability_is_measured_on_what_the_options_choose_and_can_be_decoded(
    speech: Path, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stability, "measure", lambda tree, dev, *_: [(0.0,) * 4] * len(stability.AGREEMENTS))
    for options, count in (("--every 1", 2), ("", 1), ("--corpus own --every 1", 1)):
        monkeypatch.setattr(sys, "argv", f"stability --bundle {bundle_dir} {options}".split())
        stability.main()
        assert f"{count} utterances, updates every" in capsys.readouterr().out


def test_a_bundle_without_neural_language_model_gets_no_weight_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    dev = [DevUtterance("the sea", "c", Encoded(*[np.zeros((1, 1), np.float32)] * 2, torch.zeros(1, 1)))] * 2
    said = {"phones": -1.0, "lm": -2.0, "words": 2.0, "pieces": -1.0, "attention": -3.0}
    right = Candidate("the sea", 0, "lexicon", tuple(said.get(name, 0.0) for name in FEATURES))
    heard = said | {"phones": -0.9, "unknown": 1.0}
    wrong = Candidate("the see", 1, "joint", tuple(heard.get(name, 0.0) for name in FEATURES))
    lists = [[right, wrong]] * 2
    for features, rows in ((FEATURES, 11), ([name for name in FEATURES if name != "neural"], 10)):
        report_ranking(lists, dev, features)
        lines = capsys.readouterr().out.splitlines()
        printed = [line for line in lines if "{" in line]
        (chosen,) = [line for line in printed if line.startswith("> ")]
        assert chosen.split()[1] == "lexicon"
        # The columns are as wide as the longest name, so that all weights begin in one place.
        assert len({line.index("{") for line in printed}) == 1
        weights = [json.loads(line[line.index("{") :]) for line in printed]
        assert len(weights) == rows
        for row in weights:
            DecodingConfig.from_dict({"rescoring": row})
        assert any(row["neural_lm"] for row in weights) == (features is FEATURES)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (tune_decoding, "--bundle no/such"),
        (calibrate, "--bundle no/such"),
        (hints_report, "--bundle no/such"),
        (stability, "--bundle no/such"),
        (tune_recipe, "--recipe no/such"),
        (distort, "no/such --telephone --out out"),
        (prepare, "no/such --from manifest --out out"),
        (tokenizer, "--text no/such --vocab-size 64 --out out"),
        (tokenizer, "--manifest no/such --vocab-size 64 --out out"),
        (lm, "--text no/such --out out"),
        (lm, "--manifest no/such --out out"),
        (lm, "--text no/such --out out --kenlm-bin no/such"),
        (neural_lm, "--tokenizer no/such --text text --run run --out out"),
    ],
    ids=lambda value: value.__name__ if hasattr(value, "__name__") else "",
)
def test_a_path_that_does_not_exist_is_one_line_and_code_2(
    command: object,
    options: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command", *options.split()])
    with pytest.raises(SystemExit) as end:
        command.main()  # type: ignore[attr-defined]
    assert end.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert (
        len(told) == 1 and told[0].startswith(f"{command.__name__.removeprefix('training.')}: ") and "such" in told[0]
    )  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []
