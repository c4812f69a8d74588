"""A folder's run goes on only as itself: another order of batches, or another model, is refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from asr_service.model.config import TransformerConfig
from tests.training.conftest import MODEL, Corpus
from training.example import Example
from training.recipe import Recipe, StartConfig
from training.same_run import check_finished, check_same, identity

RECIPE = Recipe("mine", model=MODEL)
EXAMPLES = [Example(0, 1.5, (3, 4), (), "a"), Example(1, 2.0, (5,), (), "b")]


def changed(recipe: Recipe, section: str, **settings: Any) -> Recipe:
    return dataclasses.replace(recipe, **{section: dataclasses.replace(getattr(recipe, section), **settings)})


@pytest.mark.parametrize(
    ("recipe", "examples", "named"),
    [
        (dataclasses.replace(RECIPE, seed=2), EXAMPLES, "seed was 1, is 2"),
        (changed(RECIPE, "data", batch_s=60.0), EXAMPLES, r"data.batch_s was 120.0, is 60.0"),
        (changed(RECIPE, "optim", optimizer="adamw"), EXAMPLES, "optim.optimizer was 'muon'"),
        (changed(RECIPE, "optim", weight_decay=0.1), EXAMPLES, "optim.weight_decay was 0.05"),
        (changed(RECIPE, "model", ffn_dim=48), EXAMPLES, "model.ffn_dim"),
        (RECIPE, EXAMPLES[:1], "utterances or their targets"),
        (RECIPE, [EXAMPLES[0], dataclasses.replace(EXAMPLES[1], tokens=(6,))], "utterances or their targets"),
        (RECIPE, [EXAMPLES[0], dataclasses.replace(EXAMPLES[1], phones=(6,))], "utterances or their targets"),
    ],
)
def test_what_a_run_cannot_go_on_with_is_refused_by_name(recipe: Recipe, examples: list[Example], named: str) -> None:
    with pytest.raises(ValueError, match=rf"runs/mine holds another run: .*{named}"):
        check_same(Path("runs/mine"), identity(RECIPE, EXAMPLES), identity(recipe, examples))


def test_a_checkpoint_that_does_not_say_of_what_run_it_is_is_refused() -> None:
    with pytest.raises(ValueError, match="runs/mine: its checkpoint does not say"):
        check_same(Path("runs/mine"), None, identity(RECIPE, EXAMPLES))


def test_a_finished_run_is_the_same_wherever_it_was_and_on_whatever_machine() -> None:
    kept = identity(RECIPE, EXAMPLES)
    kept["recipe"]["data"]["lexicon"] = "/home/gpu/asr/asr_service/models/en-s/lexicon.txt.gz"
    now = changed(changed(RECIPE, "data", prefetch=2), "optim", keep_best=3, max_skipped=9)
    check_finished(Path("runs/mine"), kept, now)
    for other in ("/home/gpu/other.txt.gz", "", "/home/gpu/models/en-s/lexicon.txt.gz"):
        kept["recipe"]["data"]["lexicon"] = other
        with pytest.raises(ValueError, match=r"data\.lexicon was .*, is 'the shipped one'"):
            check_finished(Path("runs/mine"), kept, now)


def test_settings_that_are_new_in_the_code_stood_at_their_defaults() -> None:
    recipe = dataclasses.replace(RECIPE, start=StartConfig("first", copies=2))
    kept = identity(recipe, EXAMPLES)
    for section, name in (("model", "conv_kernel"), ("loss", "consistency"), ("data", "prefetch"), ("start", "copies")):
        del kept["recipe"][section][name]
    del kept["recipe"]["augment"], kept["recipe"]["finetune"]
    now = changed(recipe, "start", copies=0)
    now = changed(now, "model", conv_kernel=TransformerConfig().conv_kernel)
    assert check_same(Path("runs/mine"), kept, identity(now, EXAMPLES)) == []
    check_finished(Path("runs/mine"), kept, now)
    check_finished(Path("runs/mine"), kept, dataclasses.replace(now, dtype="float32"))
    other = changed(now, "loss", consistency=0.2)
    assert check_same(Path("runs/mine"), kept, identity(other, EXAMPLES)) == ["loss.consistency was 0.0, is 0.2"]
    with pytest.raises(ValueError, match=r"of another recipe: loss.consistency was 0.0, is 0.2\. Move"):
        check_finished(Path("runs/mine"), kept, other)
    with pytest.raises(ValueError, match="holds another run: seed was 1, is 2"):
        check_same(Path("runs/mine"), kept, identity(dataclasses.replace(now, seed=2), EXAMPLES))


def test_what_it_may_go_on_with_is_told() -> None:
    recipe = changed(
        changed(changed(RECIPE, "optim", max_steps=9), "augment", noise_probability=0.5), "data", prefetch=2
    )
    lines = check_same(Path("runs/mine"), identity(RECIPE, EXAMPLES), identity(recipe, EXAMPLES))
    assert lines == [
        "augment.noise_probability was 0.0, is 0.5",
        "data.prefetch was 0, is 2",
        "optim.max_steps was 10000, is 9",
    ]


def test_a_checkpoint_of_another_run_is_refused_and_of_this_one_told(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus.trainer("another").save()
    with pytest.raises(ValueError, match="another holds another run: seed was 1, is 2"):
        corpus.trainer("another", seed=2).resume()
    assert corpus.trainer("another", lr=0.5).resume()
    assert capsys.readouterr().out.endswith("\n  optim.lr was 0.001, is 0.5\n")
