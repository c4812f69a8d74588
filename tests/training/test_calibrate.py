"""Weights of word confidences: found where they are known, and judged on speakers that did not make them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from asr_service.decoding.confidence import FEATURES, ConfidenceWeights
from asr_service.decoding.config import DecodingConfig
from asr_service.engine.runner import Encoded
from asr_service.evaluation.calibration import judge
from asr_service.model.bundle import load_bundle
from asr_service.types import Mode
from training.calibrate import HeardWords, chance_ece, hear, intervals, report, stretches, write_weights
from training.logistic import CannotJudge, cross_fitted, fit, log_loss

TRUE = ConfidenceWeights(intercept=1.0, posterior=0.5, entropy=-2.0, pieces=0.7)


def words(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features on various scales, and whether each word is right, drawn by `TRUE`."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0.3, 1.0, (count, len(FEATURES))) * np.linspace(0.5, 3.0, len(FEATURES))
    return features, rng.random(count) < TRUE.probabilities(features)


def test_the_weights_that_made_the_words_right_are_found() -> None:
    features, right = words(40_000)
    found = fit(features, right)
    for name in ("intercept", *FEATURES):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), abs=0.1), name
    unseen, truth = words(10_000, seed=1)
    assert judge(found.probabilities(unseen), truth).ece < 0.02


def test_the_fit_is_the_same_again_and_does_not_depend_on_a_features_unit() -> None:
    features, right = words(500)
    found = fit(features, right)
    assert fit(features, right) == found
    scaled = fit(features * 1000.0, right)
    for name in FEATURES:
        assert getattr(scaled, name) * 1000.0 == pytest.approx(getattr(found, name), rel=1e-3, abs=1e-6)


def test_words_that_a_feature_tells_apart_without_error_leave_the_weights_finite() -> None:
    features, _ = words(200)
    found = fit(features, features[:, 0] > 0.0)
    assert 0.0 < found.posterior < 100.0


def test_a_feature_that_never_changes_gets_no_weight() -> None:
    features, right = words(300)
    features[:, 2] = 7.0
    assert getattr(fit(features, right), FEATURES[2]) == 0.0


def test_only_the_named_features_get_weights() -> None:
    found = fit(*words(300), ("entropy",))
    assert found.entropy < 0.0 and all(getattr(found, name) == 0.0 for name in FEATURES if name != "entropy")


@pytest.mark.parametrize(
    ("right", "case"),
    [([True] * 5, "all of the 5 words are right"), ([False] * 5, "none of the 5 words are right"), ([], "no words")],
)
def test_where_nothing_can_be_told_apart_nothing_is_fitted(right: list[bool], case: str) -> None:
    with pytest.raises(ValueError, match=f"{case}: no confidence can be fitted"):
        fit(words(len(right))[0], np.array(right, dtype=bool))


def test_the_words_of_one_speaker_cannot_be_judged_by_those_of_others() -> None:
    features, right = words(40)
    with pytest.raises(CannotJudge, match="all 40 words are of one speaker, 'ann': two or more are needed"):
        cross_fitted(features, right, np.full(40, "ann"))


@pytest.mark.parametrize("others", ["right", "wrong"])
def test_where_one_speaker_has_all_the_errors_it_is_named_and_weights_are_fitted_all_the_same(others: str) -> None:
    features, right = words(40)
    right[20:] = others == "right"
    with pytest.raises(CannotJudge, match=f"all 20 words but those of speaker 'ann' are {others}"):
        cross_fitted(features, right, np.repeat(["ann", "bob"], 20))
    assert fit(features, right).intercept


def test_a_dev_set_in_which_no_word_is_heard_is_refused(bundle_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"no word is heard in 0 utterances \(accurate\)"):
        hear(load_bundle(bundle_dir), [], [], Mode.ACCURATE)


def test_a_speakers_own_words_have_no_say_in_their_confidences() -> None:
    features, right = words(600)
    speakers = np.resize(["ann", "bob", "cid"], 600)
    bob = speakers == "bob"
    once = cross_fitted(features, right, speakers)
    again = cross_fitted(features, np.where(bob, ~right, right), speakers)
    assert (again[bob] == once[bob]).all() and (again[~bob] != once[~bob]).any()


def test_intervals_hold_what_was_measured_and_narrow_with_the_utterances() -> None:
    features, right = words(4_000)
    chances = TRUE.probabilities(features)
    widths = []
    for count in (400, 4_000):
        _, auc = intervals(chances[:count], right[:count], np.arange(count) // 10)
        low, high = (float(limit) for limit in auc.strip("()").split("-"))
        measured = judge(chances[:count], right[:count]).auc
        assert measured is not None and low < measured < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert intervals(chances[:40], np.ones(40, dtype=bool), np.arange(40))[1] == "-"


def test_log_loss_is_that_of_the_chances_given() -> None:
    assert log_loss(np.array([0.8, 0.4]), np.array([True, False])) == pytest.approx(-np.log([0.8, 0.6]).mean())
    assert log_loss(np.array([1.0]), np.array([False])) == pytest.approx(-np.log(1e-6))


def test_confidences_without_fault_have_an_ece_by_chance_that_falls_with_the_words() -> None:
    chances = np.random.default_rng(9).uniform(0.3, 1.0, 5_000)
    few, many = chance_ece(chances[:200]), chance_ece(chances, draws=10)
    assert few > 0.05 and many < 0.03
    assert chance_ece(np.ones(50)) == 0.0


def test_weights_go_into_the_config_beside_the_other_modes_and_all_else_stays(tmp_path: Path) -> None:
    before = {"name": "x", "decoding": {"n_best": 7, "confidence": {"streaming": {"intercept": 2.0}}}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(before))
    write_weights(tmp_path, Mode.ACCURATE, TRUE)
    after = json.loads(path.read_text())
    config = DecodingConfig.from_dict(after["decoding"])
    assert config.confidence.accurate == TRUE and config.confidence.streaming == ConfidenceWeights(intercept=2.0)
    del after["decoding"]["confidence"]["accurate"]
    assert after == before


@pytest.mark.parametrize("frames", [32, 40, 6])
def test_a_live_utterance_comes_in_chunks_that_make_up_the_whole(frames: int) -> None:
    whole = Encoded(np.arange(frames), np.arange(frames // 2), np.arange(frames // 2))
    assert list(stretches(whole, Mode.ACCURATE, 16)) == [whole]
    parts = list(stretches(whole, Mode.STREAMING, 16))
    assert all(len(part.phones) == 2 * len(part.pieces) <= 16 for part in parts)
    for name in ("phones", "pieces", "hidden"):
        assert np.concatenate([getattr(part, name) for part in parts]).tolist() == getattr(whole, name).tolist()


def test_the_report_says_who_was_judged_and_what_each_feature_buys(capsys: pytest.CaptureFixture[str]) -> None:
    features, right = words(600)
    speakers, corpora = np.repeat(["ann", "bob", "cid"], 200), np.repeat(["clean", "other"], [400, 200])
    utterances = np.arange(600) // 10
    report(HeardWords(features, TRUE.probabilities(features), right, speakers, corpora, utterances), Mode.STREAMING)
    printed = capsys.readouterr().out
    assert "clean: 400 words" in printed and "2 speakers (ann, bob)" in printed and "1 speakers (cid)" in printed
    rows = ("all", "clean", "other", "clean, by the rest", "other, by the rest", *(f"without {f}" for f in FEATURES))
    for row in rows:
        assert any(line.startswith(row) for line in printed.splitlines()), row
