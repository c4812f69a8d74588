"""Results: figures come from counts, intervals from their definitions, and one command goes from recipe to table."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy import stats

from asr_service.evaluation.scoring import score
from asr_service.model.bundle import CONFIG_FILE, LM_FILE
from training.data import Utterance
from training.measure import Measurement, all_confusions
from training.metrics import read_metrics
from training.recipe import BundleConfig, Recipe, load_recipe
from training.results import MAX_CONFUSIONS, RECIPES, add, by_corpus, keep_commonest, main, make_bundle
from training.results_table import half_interval, table, wilson_interval
from training.spent import spent
from training.stages import Stage
from training.train import main as train


@pytest.mark.parametrize(("right", "count"), [(0, 10), (7, 10), (298, 300), (300, 300)])
def test_the_interval_of_a_share_is_wilsons(right: int, count: int) -> None:
    expected = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-4)


@pytest.mark.parametrize("count", [2, 3, 10, 11, 12, 40])
def test_the_interval_over_seeds_is_students(count: int) -> None:
    values = [0.05 + 0.003 * (number % 3) for number in range(count)]
    low, high = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
    assert half_interval(values) == pytest.approx((high - low) / 2, rel=1e-3)


def test_the_errors_are_of_all_kinds() -> None:
    found = all_confusions(score(["one two", "one two", "nine"], ["one three", "one three", "five nine"]))
    assert found == (("two", "three", 2), ("", "five", 1))
    assert all_confusions(score(["one two"], ["two"])) == (("one", "", 1),)


def test_errors_are_added_up_over_the_seeds_before_the_rarer_are_left_out() -> None:
    seeds = [[(f"{seed}{number}", "x", 5) for number in range(20)] + [("four", "for", 4)] for seed in "ab"]
    made = record("x", {"accurate, LM": [Measurement((1,), (2,), 0.1, tuple(errors)) for errors in seeds]})
    keep_commonest(made)
    kept = made["measurements"]["corpus"]["systems"]["accurate, LM"]["confusions"]
    assert len(kept) == MAX_CONFUSIONS
    assert kept[0] == ["four", "for", 8]


MADE = {"date": "2026-11-22", "commit": "abc1234", "machine": "a machine"}


def record(name: str, measured: dict[str, list[Measurement]]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": name,
        "command": f"python -m training.results --recipe {name}",
        **MADE,
        "normalizer": "basic-1",
        "data_h": 0.5,
        "utterances": 100,
        "parameters": 1_500_000,
        "runs": [{"seed": 1, "steps": 10, "wall_s": 120.0, "cpu_s": 60.0, **MADE}],
        "measurements": {},
    }
    for system, results in measured.items():
        for result in results:
            add(made, "corpus", system, result)
    return made


def test_the_table_states_mean_interval_and_every_seed(tmp_path: Path) -> None:
    runs = [Measurement((1, 0, 2), (4, 5, 6), 0.1, (("a", "b", 2),)), Measurement((1, 1, 2), (4, 5, 6), 0.1)]
    (tmp_path / "x.json").write_text(json.dumps(record("x", {"accurate, LM": runs, "streaming, LM": runs[:1]})))
    text = table(tmp_path)
    row = next(line for line in text.splitlines() if line.startswith("| x |"))
    _, _, corpus, accurate, without, streaming, _, _ = row.split("|")
    assert corpus.strip() == "corpus (3 utterances, 15 words)"
    assert accurate.strip().startswith("23.33 % [")
    assert "seeds 20.00 26.67, ±42.3" in accurate
    assert without.strip() == "–"
    assert streaming.strip().startswith("20.00 % [") and "seeds" not in streaming
    assert (
        "a → b 2" in text and "python -m training.results --recipe x" in text and "1.0 min of CPU), 2026-11-22" in text
    )
    assert "measured on 2026-11-22 at commit abc1234 on a machine" in text


def test_single_words_are_told_as_accuracy(tmp_path: Path) -> None:
    result = Measurement((0, 0, 1, 0), (1, 1, 1, 1), 0.1)
    (tmp_path / "x.json").write_text(json.dumps(record("x", {"accurate, LM": [result]})))
    assert "accuracy 75.00 % [30.06, 95.44]" in table(tmp_path)


def test_a_bundle_that_was_not_trained_there_is_told_as_such(tmp_path: Path) -> None:
    made = record("x", {"accurate, LM": [Measurement((0, 1), (4, 5), 0.1)]})
    (tmp_path / "x.json").write_text(json.dumps(made))
    assert "A bundle as it is" not in table(tmp_path)
    (tmp_path / "x.json").write_text(json.dumps(made | {"runs": []}))
    assert "\n\n- A bundle as it is; its recipe says how it was made.\n\n" in table(tmp_path)


def _tones(folder: Path) -> None:
    """Two words, each a chord of its own, with the fields of the corpora's manifests."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(48):
        word, pitches = (("go", (300, 500)), ("stop", (1500, 2500)))[number % 2]
        seconds = np.arange(int(16_000 * rng.uniform(0.5, 0.7))) / 16_000
        wave = sum(np.sin(2 * np.pi * pitch * rng.uniform(0.95, 1.05) * seconds) for pitch in pitches)
        quiet = np.zeros(3_200)
        wave = np.concatenate([quiet, 0.1 * wave, quiet]) + rng.normal(0, 1e-3, len(seconds) + 6_400)
        soundfile.write(folder / f"tone_{number}.wav", wave.astype(np.float32), 16_000)
        row = {"audio_filepath": f"tone_{number}.wav", "duration": len(wave) / 16_000, "text": word}
        rows.append(json.dumps(row | {"speaker": f"s{number % 4}", "corpus": "tones"}))
    (folder / "train.jsonl").write_text("\n".join(rows) + "\n")


RECIPE = r"""
dtype = "float32"
[model]
n_mels = 40
stem_channels = 4
d_model = 32
n_heads = 2
ffn_dim = 64
encoder_layers = 3
decoder_layers = 1
downsample_after = 1
phone_layer = 1
conv_kernel = 3
vocab_size = 34
dropout = 0.0
[data]
corpora = ["tones"]
path_pattern = '_[1-4]\d\.wav$'
dev_manifest = "train.jsonl"
dev_path_pattern = '_\d\.wav$'
lexicon = ""
batch_s = 8.0
[optim]
lr = 1e-2
warmup_steps = 5
max_steps = 60
ema_decay = 0.8
[augment]
start_step = 1000
chunk_start_step = 20
chunks = [8, 16]
[bundle]
ngram_order = 2
"""


def test_one_command_goes_from_a_recipe_to_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speech = tmp_path / "speech"
    speech.mkdir()
    _tones(speech)
    (tmp_path / "tones.toml").write_text(RECIPE)
    monkeypatch.setenv("ASR_SPEECH_DIR", str(speech))
    main(["--recipe", str(tmp_path / "tones.toml"), "--runs", str(tmp_path / "runs")])
    kept = json.loads((tmp_path / "runs" / "results" / "tones.json").read_text())
    assert kept["utterances"] == 38 and kept["runs"][0]["steps"] == 60 and kept["runs"][0]["cpu_s"] > 0
    measured = kept["measurements"]["tones"]
    assert measured["words"] == " ".join(["1"] * 10)
    errors = {system: sum(map(int, result["errors"][0].split())) for system, result in measured["systems"].items()}
    assert errors["accurate, LM"] <= 1 and errors["streaming, LM"] <= 1
    assert "| tones | tones (10 utterances, 10 words) | accuracy" in (tmp_path / "runs" / "RESULTS.md").read_text()
    # What is trained is trained, unless by another recipe.
    finished = sorted((tmp_path / "runs" / "tones-seed1").glob("*.pt"))
    main(["--recipe", str(tmp_path / "tones.toml"), "--runs", str(tmp_path / "runs")])
    assert sorted((tmp_path / "runs" / "tones-seed1").glob("*.pt")) == finished
    (tmp_path / "tones.toml").write_text(RECIPE.replace("lr = 1e-2", "lr = 2e-2"))
    with pytest.raises(SystemExit, match="2"):
        main(["--recipe", str(tmp_path / "tones.toml"), "--runs", str(tmp_path / "runs")])
    assert "holds a finished run of another recipe: optim.lr was 0.01, is 0.02" in capsys.readouterr().err


def test_a_run_whose_time_nobody_took_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _tones(tmp_path)
    recipe, runs = tmp_path / "tones.toml", tmp_path / "runs"
    recipe.write_text(RECIPE.replace("max_steps = 60", "max_steps = 2"))
    monkeypatch.setenv("ASR_SPEECH_DIR", str(tmp_path))
    monkeypatch.setattr("training.train.draw_run", lambda _: None)  # most of such a run's time
    train(["--config", str(recipe), "--runs", str(runs), "--seed", "2"])
    assert spent(runs / "tones-seed2").wall_s > 0
    (runs / "tones-seed2" / "time.json").unlink()  # of a run before there was one
    with pytest.raises(SystemExit, match="2"):
        main(["--recipe", str(recipe), "--runs", str(runs), "--seeds", "1,2"])
    assert "results: " + str(runs / "tones-seed2") + " is finished, but has no time.json" in capsys.readouterr().err
    assert not (runs / "tones-seed1").exists() and not (runs / "tones-seed2" / "bundle").exists()


def test_a_corpus_that_dev_lacks_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _tones(tmp_path)
    (tmp_path / "tones.toml").write_text(RECIPE)
    monkeypatch.setenv("ASR_SPEECH_DIR", str(tmp_path))
    command = ["--recipe", str(tmp_path / "tones.toml"), "--runs", str(tmp_path / "runs")]
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--corpus", "tones", "--corpus", "tone"])
    assert capsys.readouterr().err == "results: --corpus tone: dev of tones has tones\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("own", [False, True])
def test_only_a_recipe_of_the_repository_changes_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    committed, runs = tmp_path / "committed", tmp_path / "runs"
    monkeypatch.setattr("training.results.RECORDS", committed / "results")
    monkeypatch.setattr("training.results.TABLE", committed / "RESULTS.md")
    monkeypatch.setattr("training.results.measured", lambda _: record("an4", {}))
    main(["--recipe", str(tmp_path / "an4.toml") if own else "an4", "--runs", str(runs)])
    for folder in (committed, runs):
        written = folder == (runs if own else committed)
        assert (folder / "results" / "an4.json").exists() == (folder / "RESULTS.md").exists() == written


def test_a_bundle_has_what_its_recipe_says_and_an_n_gram_of_its_utterances_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(arguments: list[str]) -> None:
        out = Path(arguments[arguments.index("--out") + 1])
        out.mkdir()
        (out / CONFIG_FILE).write_text('{"name": "x", "streaming": {"chunk_frames": 8}}')

    monkeypatch.setattr("training.stages.export_main", export)
    wanted = BundleConfig(ngram_order=2, decoding={"n_best": 7}, lead_frames=6)
    bundle = make_bundle(Stage((), Recipe("x", bundle=wanted), tmp_path, None), ["mister smith"])
    assert "\tmister smith" in (bundle / LM_FILE).read_text()
    config = json.loads((bundle / CONFIG_FILE).read_text())
    streaming = {"chunk_frames": 8, "lead_frames": 6}
    assert config == {"name": "x", "streaming": streaming, "decoding": {"n_best": 7}}


def test_texts_that_are_not_spelled_out_measure_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tones(tmp_path)
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"text": "go 2"})
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "tones.toml").write_text(RECIPE)
    monkeypatch.setenv("ASR_SPEECH_DIR", str(tmp_path))
    heard: list[str] = []

    def measurements(_bundle: object, corpora: dict[str, list[Utterance]], _jobs: int) -> list[Any]:
        heard.extend(utterance.path.stem for utterance in corpora["tones"])
        return []

    monkeypatch.setattr("training.results.measurements", measurements)
    bundle = str(Path(__file__).parents[2] / "asr_service" / "models" / "en-s")
    main(["--recipe", str(tmp_path / "tones.toml"), "--runs", str(tmp_path / "runs"), "--bundle", bundle])
    assert heard == [f"tone_{number}" for number in range(1, 10)]


def test_utterances_are_grouped_by_corpus() -> None:
    made = [Utterance(Path(name), 1.0, "go", "s", corpus) for name, corpus in (("a", "x"), ("b", "y"), ("c", "x"))]
    assert {corpus: [u.path.name for u in group] for corpus, group in by_corpus(made).items()} == {
        "x": ["a", "c"],
        "y": ["b"],
    }


def rehearse(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]) -> Path:
    """Two steps of a recipe for GPUs on a CPU, with these patterns of it replaced; gives the run's folder."""
    speech = folder / "speech"
    speech.mkdir()
    _tones(speech)
    data = load_recipe(RECIPES / f"{name}.toml").data
    rows = [json.loads(line) for line in (speech / "train.jsonl").read_text().splitlines()]
    lines: dict[str, list[str]] = {}
    for manifest, corpora in ((data.manifest, data.corpora), (data.dev_manifest, data.dev_corpora)):
        named = itertools.cycle(corpora or ["tones"])
        lines.setdefault(manifest, []).extend(json.dumps(row | {"corpus": next(named)}) for row in rows)
    for manifest, utterances in lines.items():
        (speech / manifest).write_text("\n".join(utterances) + "\n")
    monkeypatch.setenv("ASR_SPEECH_DIR", str(speech))
    text = (RECIPES / f"{name}.toml").read_text()
    for full, tiny in changes.items():
        text, count = re.subn(full, tiny, text)
        assert count == 1, full
    (folder / f"{name}.toml").write_text(text)
    train(["--config", str(folder / f"{name}.toml"), "--runs", str(folder / "runs"), "--max-steps", "2"])
    return folder / "runs" / name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_recipe_for_eight_gpus_takes_steps_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"vocab_size = 1024": "vocab_size = 34", r"batch_s = \S+": "batch_s = 4.0"}
    folder = rehearse("libri-960", tmp_path, monkeypatch, changes)
    assert (folder / "step-0000002.pt").exists()


def test_the_recipe_for_one_gpu_takes_steps_on_a_cpu_with_its_augmentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        r"preset = \S+\n\n": 'preset = "streaming-s"\nvocab_size = 34\n\n',
        r"batch_s = \S+": "batch_s = 4.0",
        "\nstart_step = 400": "\nstart_step = 1\nrooms = 2",
        "room_probability = 0.1": "room_probability = 0.5",
    }
    folder = rehearse("libri-mini-gpu", tmp_path, monkeypatch, changes)
    assert (folder / "step-0000002.pt").exists()
    plain, augmented = (row for row in read_metrics(folder) if row["kind"] == "train")
    assert "phone_consistency" not in plain, "one view"
    assert augmented["phone_consistency"] > 0 and math.isfinite(augmented["total"])
