"""Fine-tuning: it begins at the base's word error rate, refuses what does not fit, and ends in an ordinary bundle."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from asr_service.errors import BundleError
from asr_service.lexicon import Lexicon, Pronunciation
from asr_service.model.bundle import LEXICON_FILE, LM_FILE, TOKENIZER_FILE, Bundle, load_bundle
from asr_service.tokenizer import Normalization, WordPieces
from asr_service.types import Mode
from tests.engine.conftest import make_tiny_bundle
from tests.training.finetuning import scripted, write_manifest
from training import finetune
from training.data import Utterance, read_manifest
from training.finetune_config import FinetuneConfig
from training.finetune_identity import IDENTITY_FILE
from training.finetune_looks import Look, Recognised, evaluated
from training.finetune_run import ADAPTERS_FILE, BEST_FILE, FineTuning, bundle_with
from training.lexicon import Pronouncer
from training.lora import main as merge
from training.measure import recognise
from training.recipe import AugmentConfig, DataConfig, OptimConfig, Recipe
from training.spent import spent

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    write_manifest(folder, "train.jsonl", "new", ["Tick, baa!", "baa tick", "tick tick"])
    write_manifest(folder, "train.jsonl", "old", ["aa b", "k iy", "baa", "s ah n", "t aa"])
    write_manifest(folder, "dev.jsonl", "new", ["baa", "tick baa", "tick 2"])  # what has digits measures nothing
    write_manifest(folder, "dev.jsonl", "old", ["aa b", "s ah"])
    return folder


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(autouse=True)
def _speech_dir(speech: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_SPEECH_DIR", str(speech))


def recipe(method: str = "lora", *, max_steps: int = 4, **settings: Any) -> Recipe:
    values: dict[str, Any] = {"method": method, "rank": 2, "look_every": 2, "old_corpora": ("old",)}
    values |= {"old_dev_corpora": ("old",), "old_share": 0.5}
    return Recipe(
        name=f"tuned-{method}",
        dtype="float32",
        data=DataConfig(corpora=("new",), dev_corpora=("new",), batch_s=4.0, lexicon="", short_first_epochs=0),
        optim=OptimConfig(optimizer="adamw", lr=3e-3, warmup_steps=1, max_steps=max_steps, ema_decay=0.0),
        augment=AugmentConfig(start_step=0, chunk_start_step=0, chunks=(2, 4), left=8),
        finetune=FinetuneConfig(**values | settings),
    )


def tuning(base_dir: Path, folder: Path, which: Recipe | None = None) -> FineTuning:
    store = base_dir.parent / "pcm"  # decoded once for all runs: their utterances are the same
    if store.exists() and not (folder / "pcm").exists():
        shutil.copytree(store, folder / "pcm")
    run = FineTuning(which or recipe(), load_bundle(base_dir), folder, device=CPU, workers=1)
    if not store.exists():
        shutil.copytree(folder / "pcm", store)
    return run


# Before step 0


@pytest.mark.parametrize("method", ["full", "lora"])
def test_step_0_recognises_exactly_what_the_base_does(base_dir: Path, tmp_path: Path, method: str) -> None:
    run = tuning(base_dir, tmp_path / "run", recipe(method))
    utterances = [*run.dev, *run.old_dev]
    before = recognise(load_bundle(base_dir), utterances, Mode.ACCURATE)
    assert any(before)  # silence would be equal to silence
    assert recognise(bundle_with(run.searched, run.weights()), utterances, Mode.ACCURATE) == before


def test_the_look_at_step_0_has_the_word_error_rates_of_the_base(base_dir: Path, tmp_path: Path) -> None:
    run = tuning(base_dir, tmp_path / "run")
    look = run.look(0)
    assert (look.target, look.old) == (run.before(run.dev).wer, run.before(run.old_dev).wer)


# What is refused


def test_old_data_that_are_the_targets_own_are_no_old_data(base_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"old_share is 0\.5, but train\.jsonl has nothing besides the target"):
        tuning(base_dir, tmp_path / "run", recipe(old_corpora=("new",)))


def test_forgetting_that_cannot_be_seen_is_told(
    base_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuning(base_dir, tmp_path / "seen")
    assert "forgetting" not in capsys.readouterr().out
    tuning(base_dir, tmp_path / "unseen", recipe(old_dev_corpora=("new",)))
    assert "warning: [finetune] old_dev_manifest dev.jsonl: the target's own dev set" in capsys.readouterr().out


def test_another_tokenizer_is_refused_with_the_first_piece_that_differs(base_dir: Path, tmp_path: Path) -> None:
    other = WordPieces.train(["xyzzy zzyzx"] * 9, load_bundle(base_dir).pieces.vocab_size)
    other.save(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=r"tokenizer\.json: (piece \d+ of the tokenizer is|a tokenizer of)"):
        tuning(base_dir, tmp_path / "run", recipe(tokenizer=str(tmp_path / "tokenizer.json")))


def test_a_bundle_whose_tokenizer_is_not_for_transcripts_is_refused(base_dir: Path, tmp_path: Path) -> None:
    base = load_bundle(base_dir)
    base.pieces.normalization = Normalization("nfc", "1")
    with pytest.raises(ValueError, match=r"texts by .*nfc.*, not of transcripts"):
        FineTuning(recipe(), base, tmp_path / "run", device=CPU, workers=1)


def test_a_bundle_of_other_phones_is_refused(base_dir: Path, tmp_path: Path) -> None:
    base = load_bundle(base_dir)
    base.model.config = dataclasses.replace(base.model.config, phone_vocab_size=44)
    with pytest.raises(ValueError, match="phone CTC of 44 outputs"):
        FineTuning(recipe(), base, tmp_path / "run", device=CPU, workers=1)


def test_the_folder_of_another_run_is_refused_once_something_is_learnt(base_dir: Path, tmp_path: Path) -> None:
    before = tuning(base_dir, tmp_path / "run", recipe(rank=3))
    before.looks.add(Look(0, 0.5, 0.5))
    before.looks.save()
    run = tuning(base_dir, tmp_path / "run")
    assert not run.looks.looks  # of a run that did not begin
    run.trainer.save()
    tuning(base_dir, tmp_path / "run")  # the same again is the same run
    with pytest.raises(ValueError, match=r"holds another run: finetune\.rank was 2, is 3"):
        tuning(base_dir, tmp_path / "run", recipe(rank=3))


def test_a_recipe_without_the_section_is_refused(base_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no \[finetune\]"):
        tuning(base_dir, tmp_path / "run", Recipe(name="plain"))


def test_a_target_of_which_nothing_can_be_learned_is_refused_with_the_reasons(
    base_dir: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(speech, tmp_path / "speech")
    for path in folder.glob("new-train*.wav"):
        path.write_bytes(b"no audio")
    monkeypatch.setenv("ASR_SPEECH_DIR", str(folder))
    with pytest.raises(ValueError, match=r"train\.jsonl: no utterance can be trained on \(no audio: 3"):
        FineTuning(recipe(), load_bundle(base_dir), tmp_path / "run", device=CPU, workers=1)


def test_a_bundle_is_recognised_again_only_when_it_or_the_utterances_change(
    base_dir: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(bundle: Bundle, utterances: list[Utterance], mode: Mode) -> list[str]:
        calls.append(bundle.name)
        return [f"heard {len(calls)}"] * len(utterances)

    monkeypatch.setattr("training.finetune_looks.recognise", counted)
    folder = shutil.copytree(base_dir, tmp_path / "bundle")
    (folder / "before").mkdir()
    utterances = read_manifest(speech / "dev.jsonl")
    first = evaluated(load_bundle(folder), utterances, tmp_path / "cache")
    assert evaluated(load_bundle(folder), utterances, tmp_path / "cache") == first
    assert len(calls) == 1
    assert evaluated(load_bundle(folder), utterances[:2], tmp_path / "cache") != first
    shutil.copyfile(speech / "dev.jsonl", folder / "README.md")
    assert evaluated(load_bundle(folder), utterances, tmp_path / "cache") != first


# Runs


def test_a_run_that_forgets_stops_and_keeps_the_best_before(
    base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tuning(base_dir, tmp_path / "run", recipe(max_steps=8, on_forgetting="stop"))
    scripted(run, monkeypatch, {0: (0.9, 0.3), 2: (0.5, 0.3), 4: (0.1, 0.4)})
    kept: list[int] = []
    monkeypatch.setattr(FineTuning, "_keep", lambda self, _: kept.append(self.trainer.position.step))
    assert run.run(save_every_s=1e9)
    assert run.trainer.position.step == 4
    assert run.looks.best.step == 2 and kept == [2]
    assert "FORGETTING" in capsys.readouterr().out


def test_a_run_that_made_nothing_better_tells_what_it_made(
    base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tuning(base_dir, tmp_path / "run", recipe(max_steps=4))
    scripted(run, monkeypatch, {0: (0.5, 0.3), 2: (0.4, 0.4), 4: (0.6, 0.3)})
    assert run.run(save_every_s=1e9)
    told = r"the best, after 2 updates, had 40\.00% against the base's 50\.00%, and 40\.00% against 30\.00% on old dev"
    with pytest.raises(ValueError, match=told):
        run.export(tmp_path / "bundle", "none")


def test_a_dev_set_that_is_not_there_is_told_before_a_word_is_looked_up(base_dir: Path, tmp_path: Path) -> None:
    class NoPronouncer(Pronouncer):
        def pronounce(self, word: str) -> tuple[Pronunciation, ...]:
            raise AssertionError(word)

    missing, words = recipe(old_dev_manifest="gone.jsonl"), NoPronouncer({})
    with pytest.raises(ValueError, match=r"gone\.jsonl: No such file"):
        FineTuning(missing, load_bundle(base_dir), tmp_path / "run", device=CPU, pronouncer=words, workers=1)
    write_manifest(tmp_path, "dev.jsonl", "old", ["aa b", "s ah"])
    for audio in tmp_path.glob("*.wav"):
        audio.unlink()
    silent = recipe(old_dev_manifest=str(tmp_path / "dev.jsonl"))
    with pytest.raises(ValueError, match=r"dev\.jsonl: 2 recording\(s\) are not there, the first .*\.wav"):
        FineTuning(silent, load_bundle(base_dir), tmp_path / "run", device=CPU, pronouncer=words, workers=1)


def test_a_run_that_is_only_warned_goes_on_and_may_recover(
    base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tuning(base_dir, tmp_path / "run", recipe(max_steps=6))
    scripted(run, monkeypatch, {0: (0.9, 0.3), 2: (0.5, 0.4), 4: (0.6, 0.3), 6: (0.5, 0.31)})
    assert run.run(save_every_s=1e9)
    assert run.looks.best.step == 6


def test_an_interrupted_run_goes_on_without_a_second_look(
    base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {step: (0.9 - 0.1 * step, 0.3) for step in range(0, 6, 2)}
    straight = tuning(base_dir, tmp_path / "straight")
    scripted(straight, monkeypatch, rates)
    straight.run(save_every_s=1e9)
    first = tuning(base_dir, tmp_path / "run")
    looked_at = scripted(first, monkeypatch, rates)
    first.look(0)
    first.trainer.run(dev=(), evaluate_every=9, save_every_s=1e9, until=2)
    first.look(2)
    assert looked_at == [0, 2]
    second = tuning(base_dir, tmp_path / "run")
    looked_at = scripted(second, monkeypatch, rates)
    assert second.run(save_every_s=1e9)
    assert looked_at == [4]
    for name, value in straight.weights().items():
        torch.testing.assert_close(second.weights()[name], value, rtol=0, atol=0)


def test_a_look_is_noted_once_its_weights_are_kept(
    base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {0: (0.9, 0.3), 2: (0.5, 0.3), 4: (0.3, 0.3)}
    keep, killed_at = FineTuning._keep, 4

    def killed(self: FineTuning, weights: dict[str, torch.Tensor]) -> None:
        if self.trainer.position.step == killed_at:
            raise KeyboardInterrupt
        keep(self, weights)

    first = tuning(base_dir, tmp_path / "run")
    scripted(first, monkeypatch, rates)
    with monkeypatch.context() as patch:
        patch.setattr(FineTuning, "_keep", killed)
        with pytest.raises(KeyboardInterrupt):
            first.run(save_every_s=1e9)
    second = tuning(base_dir, tmp_path / "run")
    assert second.looks.best.step == 2
    looked_at = scripted(second, monkeypatch, rates)
    assert second.run(save_every_s=1e9)
    assert looked_at == [4] and second.looks.best.step == 4
    kept = load_file(tmp_path / "run" / BEST_FILE)
    for name, value in second.weights().items():
        torch.testing.assert_close(kept[name], value, rtol=0, atol=0)


def test_frozen_weights_do_not_move_and_the_others_do(base_dir: Path, tmp_path: Path) -> None:
    run = tuning(base_dir, tmp_path / "run", recipe("full", freeze=("encoder.stem", "decoder.")))
    before = {name: value.clone() for name, value in run.trainer.model.state_dict().items()}
    run.trainer.run(dev=(), evaluate_every=9, save_every_s=1e9, until=2)
    for name, value in run.trainer.model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(("encoder.stem", "decoder.")), name


def test_a_prefix_that_names_no_weight_is_refused(base_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no weight's name starts with 'encoder\.stam'"):
        tuning(base_dir, tmp_path / "run", recipe("full", freeze=("encoder.stam",)))
    assert not (tmp_path / "run" / IDENTITY_FILE).exists()  # put right, the run begins


TOML = """
dtype = "float32"
[data]
corpora = ["new"]
dev_corpora = ["new"]
batch_s = 4.0
[optim]
optimizer = "adamw"
lr = 1e-2
warmup_steps = 1
max_steps = 12
ema_decay = 0.0
[finetune]
rank = 4
old_corpora = ["old"]
old_dev_corpora = ["old"]
look_every = 6
"""


def test_the_command_makes_an_ordinary_bundle_and_adapters_that_merge_into_the_same(
    base_dir: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_bundle(base_dir).model.state_dict()

    def perfect(bundle: Bundle, utterances: list[Utterance], cache: Path | None = None) -> Recognised:
        """The base as it is; every look after step 0 without an error, for noise teaches nothing in a few steps."""
        found = evaluated(bundle, utterances)
        untrained = all(torch.equal(value, base[name]) for name, value in bundle.model.state_dict().items())
        return found if untrained else Recognised(found.references, found.references)

    monkeypatch.setattr("training.finetune_run.evaluated", perfect)
    config = tmp_path / "small.toml"
    (tmp_path / "lm.arpa").write_text((base_dir / LM_FILE).read_text() + "\n")
    Lexicon({"tack": (("T", "AE", "K"),)}).save(tmp_path / "tack.txt.gz")
    config.write_text(TOML.replace("batch_s = 4.0", f'batch_s = 4.0\nlexicon = "{tmp_path / "tack.txt.gz"}"'))
    common = ["--bundle", str(base_dir), "--lm", str(tmp_path / "lm.arpa")]
    arguments = [*common, "--config", str(config), "--runs", str(tmp_path), "--device", "cpu", "--name", "small-en"]
    arguments += ["--out", str(tmp_path / "out")]
    assert finetune.main([*arguments, "--max-minutes", "0"]) == 0
    assert "the time is up" in capsys.readouterr().out and not (tmp_path / "out").exists()
    assert finetune.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.index("before step 0, target dev") < printed.index("before step 0, old") < printed.index("step 6 ")
    result = json.loads((tmp_path / "small" / "result.json").read_text())
    assert result["best_step"] == 6
    assert result["minutes"] == round(spent(tmp_path / "small").wall_s / 60, 1)
    out = load_bundle(tmp_path / "out")
    assert result["after"]["target"] == evaluated(out, read_manifest(speech / "dev.jsonl")[:2]).summary()
    assert out.name == "small-en"
    merge([*common, "--adapters", str(tmp_path / "small" / ADAPTERS_FILE), "--out", str(tmp_path / "merged")])
    for file in (LM_FILE, LEXICON_FILE, TOKENIZER_FILE):
        assert (tmp_path / "merged" / file).read_bytes() == (tmp_path / "out" / file).read_bytes()
    assert out.lexicon is not None and "tack" in out.lexicon
    merged = load_bundle(tmp_path / "merged").model.state_dict()
    for name, value in out.model.state_dict().items():
        torch.testing.assert_close(merged[name], value, rtol=0, atol=0)
    assert any(not torch.equal(value, base[name]) for name, value in out.model.state_dict().items())


def test_the_command_says_what_is_wrong_in_one_line(
    base_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "small.toml"
    config.write_text(TOML + 'targets = ["q_prj"]\n')
    arguments = ["--config", str(config), "--bundle", str(base_dir), "--runs", str(tmp_path), "--device", "cpu"]
    with pytest.raises(SystemExit, match="2"):
        finetune.main(arguments)
    assert "no linear layer is called 'q_prj'" in capsys.readouterr().err


def test_the_directory_of_the_base_is_refused_as_the_place_of_the_result(
    base_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "small.toml"
    config.write_text(TOML)
    arguments = ["--config", str(config), "--bundle", str(base_dir), "--runs", str(tmp_path), "--device", "cpu"]
    with pytest.raises(SystemExit, match="2"):
        finetune.main([*arguments, "--out", str(base_dir)])
    assert "the directory of the base" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()  # nothing has begun


def test_several_processes_are_refused(
    base_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "small.toml"
    config.write_text(TOML)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="2"):
        finetune.main(["--config", str(config), "--bundle", str(base_dir), "--runs", str(tmp_path)])
    assert "WORLD_SIZE is 2" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_a_language_model_that_is_missing_is_named(base_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"gone\.kenlm: no such file"):
        FineTuning(recipe(), load_bundle(base_dir), tmp_path / "run", lm=tmp_path / "gone.kenlm", device=CPU, workers=1)


def test_dev_texts_with_digits_measure_nothing(base_dir: Path, tmp_path: Path) -> None:
    assert [utterance.text for utterance in tuning(base_dir, tmp_path / "run").dev] == ["baa", "tick baa"]
