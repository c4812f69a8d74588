"""Tuning a recipe's search: the speakers it hears, the weights that it finds, and the [bundle] table that it prints."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_service.decoding.lexicon_beam import LexiconBeam, LexiconBeamOptions
from asr_service.decoding.pronunciation_tree import PronunciationTree
from asr_service.model.bundle import Bundle, load_bundle
from tests.training.conftest import Corpus
from training.posteriors import DevUtterance
from training.ranking import FEATURES, ranked_errors, tune_ranking
from training.recipe import BundleConfig
from training.tune_decoding import candidates, first_pass, ranking_lists
from training.tune_recipe import bundle_table, encoded_rows, main, rows_of, tune_beam


@pytest.fixture(scope="module")
def bundle(bundle_dir: Path) -> Bundle:
    """Without silence before the clips: a random encoder's answers to that leave little to tune."""
    loaded = load_bundle(bundle_dir)
    return dataclasses.replace(loaded, streaming=dataclasses.replace(loaded.streaming, lead_frames=0))


@pytest.fixture(scope="module")
def tree(bundle: Bundle) -> PronunciationTree:
    assert bundle.lexicon is not None and bundle.lm_path is not None
    return PronunciationTree(bundle.lexicon, bundle.lm_path)


@pytest.fixture(scope="module")
def dev(bundle: Bundle, corpus: Corpus) -> Sequence[DevUtterance]:
    return encoded_rows(bundle, corpus.utterances, corpus.store, [1, 5, 9], threads=1)


def said(dev: Sequence[DevUtterance], tree: PronunciationTree, options: LexiconBeamOptions) -> list[DevUtterance]:
    """The utterances, as if what the beam makes of them were what was said."""
    beam = LexiconBeam(tree, options)
    rows = []
    for utterance in dev:
        beam.begin()
        beam.step(utterance.encoded.phones)
        rows.append(dataclasses.replace(utterance, text=" ".join(beam.finish(1)[0].texts)))
    return rows


def test_only_these_utterances_are_heard(dev: Sequence[DevUtterance], corpus: Corpus) -> None:
    assert [utterance.text for utterance in dev] == [corpus.utterances[index].text for index in (1, 5, 9)]


def test_the_named_speakers_are_heard_where_they_have_audio_and_texts_that_are_spelled_out(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    utterances = [dataclasses.replace(row, speaker=f"speaker{n % 4}") for n, row in enumerate(corpus.utterances)]
    assert rows_of("train.jsonl", utterances, corpus.store, {"speaker1"}) == [1, 5, 9]
    utterances[5] = dataclasses.replace(utterances[5], written="in 1984")
    monkeypatch.setattr(corpus.store, "skipped", {9: "no samples"})
    capsys.readouterr()
    assert rows_of("train.jsonl", utterances, corpus.store, {"speaker1"}) == [1]
    assert capsys.readouterr().out.startswith("train.jsonl: 1 of 2 texts are not spelled out")
    with pytest.raises(ValueError, match=r"train\.jsonl: no text with words"):
        rows_of("train.jsonl", utterances, corpus.store, {"nobody"})


@pytest.mark.parametrize("option", ["--threads", "--n-best"])
def test_none_at_all_is_refused_by_the_options_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.setattr("sys.argv", ["tune_recipe", "--recipe", "nobody", option, "0"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"argument {option}: must be 1 or more, not 0" in capsys.readouterr().err


def test_the_beam_gets_weights_that_make_the_fewest_errors(
    dev: Sequence[DevUtterance], tree: PronunciationTree, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = LexiconBeamOptions(lm_weight=0.3, word_score=2.0)
    spoken = said(dev, tree, wanted)
    assert first_pass(tree, spoken, LexiconBeamOptions(lm_weight=0.7, word_score=0.0))[0] > 0
    found = tune_beam(tree, spoken)
    assert first_pass(tree, spoken, found)[0] == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 20 and "lm_weight 0.3  word_score  2.0  WER  0.00%" in printed


def test_a_tuned_ranking_is_better_than_the_phones_alone_and_the_table_is_one_that_recipes_are_read_with(
    dev: Sequence[DevUtterance], bundle: Bundle, tree: PronunciationTree
) -> None:
    assert bundle.lexicon is not None
    beam = LexiconBeamOptions(lm_weight=0.3, word_score=2.0, context_words=100, n_best_margin=50.0)
    spoken = said(dev, tree, beam)
    with torch.inference_mode():
        found = [candidates(bundle, tree, bundle.lexicon, utterance, beam, 20) for utterance in spoken]
    assert {candidate.source for utterance in found for candidate in utterance} == {"lexicon", "joint"}
    lists = ranking_lists(found, ("lexicon",))
    assert [len(errors) for _, errors in lists] == [sum(c.source == "lexicon" for c in row) for row in found]
    free = ("phones", "lm", "words", "pieces", "attention")
    weights, errors = tune_ranking(lists, free)
    ranked = [errors[np.argmax(features @ list(weights.values()))] for features, errors in lists]
    assert sum(ranked) == errors < ranked_errors(lists, np.eye(len(FEATURES))[0]) and weights["unknown"] == 0.0
    table = tomllib.loads(bundle_table(BundleConfig(ngram_order=3, lead_frames=6), beam, weights))["bundle"]
    assert (BundleConfig(**table).ngram_order, BundleConfig(**table).lead_frames) == (3, 6)
    assert table["decoding"]["accurate"] == table["decoding"]["streaming"] == {"lm_weight": 0.3, "word_score": 2.0}
    assert table["decoding"]["rescoring"] == pytest.approx(
        {
            "phones": weights["phones"],
            "language_model": weights["lm"],
            "word": weights["words"],
            "pieces": weights["pieces"],
            "attention": weights["attention"],
        },
        abs=0.005,
    )
