"""Recipes: what a file says is what the run is, and a typing error is not ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asr_service.errors import ConfigError
from asr_service.model.config import PRESETS
from training import train
from training.augmentation.speed import change_speed
from training.recipe import load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_loads(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_a_recipe_changes_its_preset_and_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('seed = 7\n[model]\npreset = "streaming-s"\ndropout = 0.2\n[augment]\nspeeds = [1.0]\n')
    recipe = load_recipe(path)
    assert (recipe.name, recipe.seed, recipe.model.dropout, recipe.augment.speeds) == ("mine", 7, 0.2, (1.0,))
    assert recipe.model.d_model == PRESETS["streaming-s"].d_model


def test_a_recipe_that_extends_another_says_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "grandparent.toml").write_text("seed = 7\n[optim]\nlr = 0.5\nmax_steps = 9\n[model]\ndropout = 0.2\n")
    (tmp_path / "parent.toml").write_text('extends = "grandparent"\n[optim]\nmax_steps = 8\n')
    (tmp_path / "child.toml").write_text('extends = "parent"\n[model]\nconv_kernel = 0\n')
    recipe = load_recipe(tmp_path / "child.toml")
    assert (recipe.name, recipe.seed, recipe.optim.lr, recipe.optim.max_steps) == ("child", 7, 0.5, 8)
    assert (recipe.model.dropout, recipe.model.conv_kernel) == (0.2, 0)


def test_a_table_in_a_section_keeps_what_the_recipe_does_not_say_itself(tmp_path: Path) -> None:
    (tmp_path / "parent.toml").write_text(
        "[bundle.decoding.accurate]\nlm_weight = 0.7\nword_score = 1.0\n[bundle.decoding.rescoring]\nword = 3.5\n"
        "[augment]\nchunks = [8, 16]\n"
    )
    (tmp_path / "child.toml").write_text(
        'extends = "parent"\n[bundle.decoding.accurate]\nlm_weight = 0.9\n[augment]\nchunks = [4]\n'
    )
    recipe = load_recipe(tmp_path / "child.toml")
    assert recipe.bundle.decoding == {"accurate": {"lm_weight": 0.9, "word_score": 1.0}, "rescoring": {"word": 3.5}}
    assert recipe.augment.chunks == (4,)


@pytest.mark.parametrize(("value", "said"), [("[seed]", r"section \[seed\]"), ("optim = 1", "setting 'optim'")])
def test_a_table_where_the_extended_recipe_has_a_value_is_refused(tmp_path: Path, value: str, said: str) -> None:
    (tmp_path / "parent.toml").write_text("seed = 1\n[optim]\nlr = 1\n")
    (tmp_path / "child.toml").write_text(f'extends = "parent"\n{value}\n')
    with pytest.raises(ValueError, match=rf"child\.toml: unknown {said}"):
        load_recipe(tmp_path / "child.toml")


@pytest.mark.parametrize("value", ['"../rec/x"', '""', "3"])
def test_what_is_extended_is_the_name_of_a_recipe_beside_it(tmp_path: Path, value: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"extends = {value}\n")
    with pytest.raises(ValueError, match=r"mine\.toml: extends is .*, must be the name of a recipe beside it"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("decoder_layers = 0", "decoder_layers is 0, must be 1 or more"),
        ("phone_vocab_size = 60", "phone_vocab_size is 60, must be 40, .* or 0"),
        ("phone_vocab_size = 7", "phone_vocab_size is 7, must be 40, .* or 0"),
    ],
)
def test_a_model_whose_bundle_could_not_be_searched_is_refused(tmp_path: Path, setting: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"[model]\n{setting}\n")
    with pytest.raises(ValueError, match=rf"mine\.toml: \[model\] {said}"):
        load_recipe(path)


def test_recipes_that_extend_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b"\n')
    (tmp_path / "b.toml").write_text('extends = "a"\n')
    with pytest.raises(ValueError, match="extends itself"):
        load_recipe(tmp_path / "a.toml")


def test_a_bundle_gets_one_language_model(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[bundle]\nngram_order = 3\nlanguage_model = "lm.kenlm"\n')
    with pytest.raises(ValueError, match="ngram_order and language_model"):
        load_recipe(path)


def test_a_language_model_that_is_not_there_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    path, lm = tmp_path / "mine.toml", tmp_path / "lm.kenlm"
    path.write_text(f'[bundle]\nlanguage_model = "{lm}"\n')
    with pytest.raises(ValueError, match=rf"mine\.toml: \[bundle\] language_model: {lm}: no such file"):
        load_recipe(path)
    lm.touch()
    assert load_recipe(path).bundle.language_model == str(lm)


def test_a_model_without_phones_gets_no_n_gram(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[model]\nphone_vocab_size = 0\n[bundle]\nngram_order = 3\n")
    with pytest.raises(ValueError, match=r"phone_vocab_size is 0: .* no n-gram"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[optim]\nlearning_rate = 1", "learning_rate"),
        ("[optimiser]\nlr = 1", "optimiser"),
        ("sead = 1", "sead"),
        ("[model]\nd_modle = 1", "d_modle"),
        ('[model]\npreset = "none"', "none"),
        ('dtype = "bf16"', "dtype"),
        ('[optim]\noptimizer = "moun"', "moun"),
        ('[model]\nnorm = "none"', "none"),
        ("[finetune]\n[model]\nd_model = 64", r"\[model\]"),
        ("[finetune]\nranks = 4", "ranks"),
        ("[finetune]\nrank = 0", "rank"),
        ("[finetune]\nold_share = 1.0", "old_share"),
        ('[finetune]\nmethod = "half"', "method"),
        ('[finetune]\nfreeze = ["encoder.stem"]', "freeze"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises((ValueError, ConfigError), match=named):
        load_recipe(path)


def test_agreement_of_views_wants_two_of_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for views in (1, 2):
        path.write_text(f"[loss]\nconsistency = 0.2\n[augment]\nviews = {views}\n")
        if views == 2:
            assert load_recipe(path).augment.views == 2
        else:
            with pytest.raises(ValueError, match=r"consistency is .* but \[augment\]"):
                load_recipe(path)


def test_a_model_that_is_trained_after_silence_is_to_get_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for lead in ("", "\n[bundle]\nlead_frames = 4"):
        path.write_text(f"[augment]\nlead_frames = 6{lead}")
        with pytest.raises(ValueError, match=r"\[augment\] lead_frames is 6, \[bundle\] lead_frames [04]"):
            load_recipe(path)
    path.write_text("[augment]\nlead_frames = 6\n[bundle]\nlead_frames = 6")
    assert load_recipe(path).bundle.lead_frames == 6
    path.write_text("[bundle]\nlead_frames = 6")  # of recordings that begin before anybody speaks
    assert load_recipe(path).augment.lead_frames == 0


@pytest.mark.parametrize(
    "setting",
    [
        "views = 3",
        "warp = [0.2, 1.0]",
        "noise_probability = 1.5",
        "babble_share = -0.1",
        "noise_snr_db = [20, 5]",
        "pause_s = [-1, 2]",
        "speeds = [0.0]",
        "speeds = [1.0, 0.001]",
        "speeds = [10.5]",
        "speeds = [1.0, nan]",
    ],
)
def test_an_augmentation_that_cannot_be_drawn_is_refused_by_name(tmp_path: Path, setting: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"[augment]\n{setting}\n")
    with pytest.raises(ValueError, match=rf"\[augment\] {setting.split(maxsplit=1)[0]} is"):
        load_recipe(path)


WRONG = {
    "seed": ("1.5", '"a"', "9223372036854775808", "-9223372036854775809"),
    "data": {
        "exclude_corpora": ('"fsdd_8k"', "[1]"),
        "corpora": ('"an4"',),
        "manifest": ("3", '["train.jsonl"]'),
        "path_pattern": ('"["',),
        "batch_s": ("0", '"20"', "nan", "2e9"),
        "max_utterance_s": ("-1", "inf"),
        "prefetch": ("-1", "2.0"),
    },
    "loss": {"ctc": ("-1",), "label_smoothing": ("1.5",)},
    "optim": {
        "lr": ('"1e-3"', "0", "nan"),
        "max_steps": ("0", "6.0", "true"),
        "warmup_steps": ("0",),
        "accumulate": ("0",),
        "clip_norm": ("0",),
        "ema_decay": ("1.5",),
        "decay_fraction": ("2",),
        "keep_best": ("-1",),
    },
    "augment": {
        "chunks": ("16", "[]", "[1]", "[7]", "[8.0]"),
        "left": ("127", "-2"),
        "lead_frames": ("3", "-2"),
        "rooms": ("0",),
        "speeds": ("1.0", "[]", '["fast"]'),
        "noise_snr_db": ("10.0", "[1]", "[1, 2, 3]"),
        "noise_probability": ('"0.5"', "nan"),
        "time_masks": ("-1",),
    },
    "model": {
        "dropout": ("1.5", '"a"'),
        "d_model": ("256.0", "-4"),
        "downsample_after": ('"a"',),
        "vocab_size": ("3",),
    },
    "bundle": {"ngram_order": ("1", "7", "-2", "3.0"), "lead_frames": ("1", "-2", "2.0")},
    "finetune": {
        "freeze": ('"encoder"',),
        "rank": ('"8"', "8.5", "0"),
        "method": ('"half"',),
        "targets": ("[]",),
        "old_share": ("1",),
        "drop_unwritable": ("1",),
    },
}
CASES = [
    (section, name, value)
    for section, settings in WRONG.items()
    for name, values in (settings.items() if isinstance(settings, dict) else [(section, settings)])
    for value in values
]


@pytest.mark.parametrize(("section", "name", "value"), CASES)
def test_a_value_that_cannot_be_meant_is_refused_by_file_section_and_name(
    tmp_path: Path, section: str, name: str, value: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{name} = {value}\n" if section == name else f"[{section}]\n{name} = {value}\n")
    with pytest.raises(ValueError, match=rf"mine\.toml: .*\b{name}\b") as refused:
        load_recipe(path)
    assert section in ("model", name) or f"[{section}]" in str(refused.value)


def test_speeds_are_told_their_limits_which_can_be_resampled(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[augment]\nspeeds = [0.001]\n")
    with pytest.raises(ValueError, match=r"speeds is \(0.001,\), must be one or more numbers from 0.1 to 10$"):
        load_recipe(path)
    path.write_text("[augment]\nspeeds = [0.1, 10]\n")
    for speed in load_recipe(path).augment.speeds:
        assert change_speed(torch.zeros(1, 1_000), speed).shape == (1, 1_000 / speed)


NO_LOSS = "[loss]\nctc = 0\nattention = 0\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{NO_LOSS}phone_ctc = 0\nlower_phone_ctc = 0", r"\[loss\] lower_phone_ctc, .*, attention are all 0"),
        (f"{NO_LOSS}[model]\nphone_vocab_size = 0", r"\[loss\] ctc, attention and consistency are 0, and \[model\]"),
    ],
)
def test_weights_of_which_nothing_is_learnt_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        load_recipe(path)
    path.write_text(NO_LOSS)  # phones alone
    assert load_recipe(path).loss.ctc == 0


def test_a_whole_number_does_where_any_number_does(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[optim]\nlr = 1\n[augment]\nspeeds = [1]\nnoise_snr_db = [0, 10]\n")
    recipe = load_recipe(path)
    assert repr((recipe.optim.lr, recipe.augment.speeds, recipe.augment.noise_snr_db)) == "(1.0, (1.0,), (0.0, 10.0))"


@pytest.mark.parametrize(
    ("text", "said"), [("lr = = 1", "not TOML"), ('extends = "nobody"', "extends it: No such file")]
)
def test_what_cannot_be_read_is_said_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{tmp_path}.*{said}"):
        load_recipe(path)


def test_a_number_above_its_limit_is_told_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[data]\nbatch_s = 2e9\n")
    with pytest.raises(ValueError, match=r"\[data\] batch_s is 2000000000.0, must be at most 1e\+09"):
        load_recipe(path)


def test_a_recipe_of_a_fine_tuning_does_not_train_a_model_from_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "small.toml"
    config.write_text("[finetune]\n")
    with pytest.raises(SystemExit, match="2"):
        train.main(["--config", str(config), "--runs", str(tmp_path), "--device", "cpu"])
    assert "python -m training.finetune" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [2**63 - 1, -(2**63)])
def test_a_seed_of_64_bits_is_one_that_torch_takes(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"seed = {seed}\n")
    torch.Generator().manual_seed(load_recipe(path).seed)


def test_a_larger_seed_of_the_command_line_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, runs = tmp_path / "small.toml", tmp_path / "runs"
    config.write_text("seed = 1\n")
    with pytest.raises(SystemExit, match="2"):
        train.main(["--config", str(config), "--runs", str(runs), "--device", "cpu", "--seed", str(2**64)])
    assert capsys.readouterr().err == f"train: seed is {2**64}, must be from {-(2**63)} to {2**63 - 1}, 64 bits\n"
    assert not runs.exists()
