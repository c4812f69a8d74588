"""Choosing `decoding.neural_margin` on dev."""

from __future__ import annotations

import numpy as np
import pytest

from asr_service.decoding.rescoring import RescoringWeights
from asr_service.engine.runner import Encoded
from training.posteriors import DevUtterance
from training.ranking import FEATURES, SMOOTHING, Lists, expected_errors, ranked_errors, tune_ranking, worth_reading
from training.tune_decoding import report_margins

WEIGHTS = RescoringWeights(
    phones=1.0, pieces=0.0, attention=0.0, language_model=0.5, neural_lm=0.5, word=0.0, unknown=0.0
)


def candidate(phones: float, n_gram: float, neural: float) -> list[float]:
    values = {"phones": phones, "lm": n_gram, "neural": neural}
    return [values.get(name, 0.0) for name in FEATURES]


# With the n-gram in the neural language model's place the scores are -3, -5 and -12; with it, -9.5, -4 and -8.
LIST = np.array([candidate(-1, -2, -15), candidate(-2, -3, -1), candidate(-8, -4, 4)])


@pytest.mark.parametrize(("margin", "read"), [(1.0, 1), (2.0, 2), (8.9, 2), (9.0, 3), (float("inf"), 3)])
def test_those_within_the_margin_with_the_n_gram_alone_are_read(margin: float, read: int) -> None:
    weights = np.array([{"phones": 1.0, "lm": 0.5, "neural": 0.5}.get(name, 0.0) for name in FEATURES])
    assert worth_reading(LIST, weights, margin).sum() == read


def test_the_table_has_what_is_read_and_what_it_costs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.tune_decoding.MARGINS", (1.0, float("inf")))
    encoded = Encoded(np.zeros((1, 40), np.float32), np.zeros((1, 8), np.float32), None)  # type: ignore[arg-type]
    dev = [DevUtterance("four words are here", "made up", encoded)]
    report_margins([(LIST, np.array([2, 1, 4]))], dev, WEIGHTS)
    narrow, wide = capsys.readouterr().out.splitlines()[-2:]
    assert narrow.split() == ["1", "1.0", "50.00", "%"]
    assert wide.split() == ["inf", "3.0", "25.00", "%"]


def test_expected_errors_are_a_mean_by_likelihood_and_near_none_of_smoothing_a_count() -> None:
    short = np.array([candidate(-1, 0, 0), candidate(-2, 0, 0)])
    lists = [(LIST, np.array([2, 1, 4])), (short, np.array([0, 3]))]
    weights = np.array([{"phones": 1.0, "lm": 0.5, "neural": 0.5}.get(name, 0.0) for name in FEATURES])
    expected = 0.0
    for features, errors in lists:
        likely = np.exp(features @ weights / SMOOTHING)
        expected += float(likely @ errors / likely.sum())
    assert expected_errors(Lists.padded(lists), weights) == pytest.approx(expected)
    sure = 1000 * weights
    assert expected_errors(Lists.padded(lists), sure) == pytest.approx(ranked_errors(lists, sure)) == 1


def test_the_ranking_learns_what_to_take_back() -> None:
    """Errors go with what the decoder hears beyond what it would say anyway; words count for nothing."""
    rng = np.random.default_rng(2)
    lists = []
    for _ in range(60):
        internal, heard = rng.normal(0, 4, 8), rng.normal(0, 4, 8)
        triples = zip(heard + internal, internal, rng.normal(0, 4, 8), strict=True)
        rows = [{"attention": a, "internal": b, "words": c} for a, b, c in triples]
        features = np.array([[row.get(name, 0.0) for name in FEATURES] for row in rows])
        lists.append((features, (heard.max() - heard).round().astype(int)))
    weights, errors = tune_ranking(lists, ("words", "attention", "internal"), restarts=2)
    assert weights["internal"] == pytest.approx(-weights["attention"], abs=0.15) and weights["attention"] > 0.5
    without, more = tune_ranking(lists, ("words", "attention"), restarts=2)
    assert abs(weights["words"]) <= 0.25 and without["internal"] == 0.0 and errors < more / 4
