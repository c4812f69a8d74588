"""Comparisons: what they refuse, what they conclude, and that they do not see differences in noise."""

import math
import random
import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asr_service.evaluation.problems import ManifestProblems
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.scoring import score
from asr_service.evaluation.significance import SIGNIFICANT_P, compare, holm, paired_bootstrap

WORDS = list(string.ascii_lowercase)


def spoken(count, speakers=0):
    draw = random.Random(4)
    return [
        Reference(f"u{n}", " ".join(draw.choices(WORDS, k=12)), speaker=f"s{n % speakers}" if speakers else "")
        for n in range(count)
    ]


def recognised(references, error_rate, seed):
    """Texts where each word is replaced with a probability."""
    draw = random.Random(seed)
    return [
        " ".join("wrong" if draw.random() < error_rate else word for word in reference.text.split())
        for reference in references
    ]


def system(name, references, error_rate, seed=0, **settings):
    return score(references, recognised(references, error_rate, seed), system=name, samples=50, **settings)


def test_a_clear_difference_is_shown_and_the_better_system_named():
    references = spoken(150)
    good, bad = system("good", references, 0.05, 1), system("bad", references, 0.15, 2)
    (pair,) = compare(bad, good).pairs
    assert pair.better == "good"
    assert pair.verdict.startswith("good is better than bad: WER ")
    assert pair.bootstrap.difference == pytest.approx(bad.wer - good.wer) == pytest.approx(pair.wer[0] - pair.wer[1])
    assert 0 < pair.bootstrap.interval.low < pair.bootstrap.difference < pair.bootstrap.interval.high
    assert pair.p < 0.01
    (turned,) = compare(good, bad).pairs
    assert turned.better == "good"
    figures = (
        f"WER {100 * good.wer:.2f} % against {100 * bad.wer:.2f} %, {100 * (bad.wer - good.wer):.2f} points less ["
    )
    assert figures in pair.verdict and figures in turned.verdict
    low, high = 100 * pair.bootstrap.interval.low, 100 * pair.bootstrap.interval.high
    assert f"points less [{low:.2f}, {high:.2f}]," in pair.verdict
    low, high = 100 * turned.bootstrap.interval.low, 100 * turned.bootstrap.interval.high
    assert f"points less [{-high:.2f}, {-low:.2f}]," in turned.verdict


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40), st.integers(0, 3))
@example([(0, 0), (0, 0), (0, 1), (1, 0)], 0)
def test_which_system_comes_first_changes_signs_and_nothing_else(errors, seed):
    references = [Reference(f"u{n}", "a b c d") for n in range(len(errors))]
    one, other = (
        score(references, [" ".join("abcd"[row[n] :]) for row in errors], samples=50, system="system") for n in (0, 1)
    )
    (pair,), (turned,) = (compare(*both, samples=100, seed=seed).pairs for both in ((one, other), (other, one)))
    assert (pair.p, pair.bootstrap.p, pair.mapsswe.p) == (turned.p, turned.bootstrap.p, turned.mapsswe.p)
    ours, theirs = pair.bootstrap.interval, turned.bootstrap.interval
    assert (ours.low, ours.high) == pytest.approx((-theirs.high, -theirs.low))


def test_without_a_reference_word_the_rates_are_those_of_the_systems():
    references = [Reference("a", ""), Reference("b", "")]
    none, some = (score(references, texts, samples=50, system="s") for texts in (["", ""], ["x", "y z"]))
    (pair,) = compare(none, some).pairs
    assert pair.wer == (none.wer, some.wer) == (0.0, math.inf)


def test_noise_is_called_no_difference_shown():
    references = spoken(100)
    (pair,) = compare(system("one", references, 0.1, 1), system("other", references, 0.1, 2)).pairs
    assert pair.better is None
    assert pair.verdict.startswith("No difference shown between one and other")
    assert pair.bootstrap.interval.low < 0 < pair.bootstrap.interval.high


def test_a_system_does_not_differ_from_itself():
    one = system("one", spoken(30), 0.1)
    comparison = compare(one, one)
    (pair,) = comparison.pairs
    assert comparison.names == ("one (1)", "one (2)")
    assert (pair.p, pair.wins, pair.losses, pair.ties, pair.changes) == (1.0, 0, 0, 30, ())


def test_the_bootstraps_p_is_twice_the_share_of_draws_that_do_not_favour_the_better_system():
    references = [Reference(f"u{n}", "one two") for n in range(30)]
    right, wrong = score(references, ["one two"] * 30), score(references, ["one too"] * 30)
    once = score(references, ["one too", *["one two"] * 29])
    assert paired_bootstrap(right.utterances, wrong.utterances, samples=199).p == 2 / 200
    p = paired_bootstrap(right.utterances, once.utterances, samples=2000).p
    assert p == paired_bootstrap(once.utterances, right.utterances, samples=2000).p
    assert p == pytest.approx(2 * (29 / 30) ** 30, abs=0.06)  # a draw without that utterance favours nobody


def test_the_larger_p_value_decides_and_the_draws_are_those_asked_for():
    references = spoken(60)
    one, other = system("one", references, 0.1, 1), system("other", references, 0.15, 2)
    (pair,) = compare(one, other, samples=300, seed=7).pairs
    assert pair.bootstrap == paired_bootstrap(one.utterances, other.utterances, samples=300, seed=7)
    assert pair.bootstrap.interval != paired_bootstrap(one.utterances, other.utterances, samples=300, seed=0).interval
    assert pair.mapsswe.p != pair.bootstrap.p
    assert pair.p == max(pair.mapsswe.p, pair.bootstrap.p)


def test_among_equal_systems_a_difference_is_shown_about_as_often_as_the_level_says():
    references = spoken(40)
    shown = 0
    for n in range(40):
        one, other = (system(name, references, 0.1, 2 * n + index) for index, name in enumerate("ab"))
        shown += compare(one, other, samples=200).pairs[0].better is not None
    assert shown <= 6  # two expected at most; above six has a chance of 0.3 %


def test_one_long_recording_shows_no_difference_and_has_no_interval():
    references = [Reference("talk", " ".join("abcdefghij" * 30))]
    (pair,) = compare(system("good", references, 0.02, 1), system("bad", references, 0.4, 2)).pairs
    assert pair.mapsswe.p < 0.01 and pair.bootstrap.p == pair.p == 1.0
    assert pair.better is None and not pair.bootstrap.interval.exists
    assert "points (no interval: one utterance), p = 1." in pair.verdict
    shown = compare(*(system(name, references, 0.1) for name in "ab"))._repr_html_()
    assert "<td>no interval: one utterance</td>" in shown
    assert "<td>no interval: one utterance</td>" in system("a", references, 0.1)._repr_html_()


def test_speakers_are_drawn_where_they_are_known():
    references = spoken(100, speakers=25)
    (pair,) = compare(system("a", references, 0.1, 1), system("b", references, 0.1, 2)).pairs
    assert pair.bootstrap.interval.over == "speakers"


def test_wins_losses_and_changes_are_counted_by_utterance_largest_first():
    references = [Reference(name, "one two three four") for name in "wxyz"]
    first = score(references, ["one two three four", "one", "one two three four", "one two three"], system="first")
    second = score(references, ["one", "one two three four", "one two three four", "one two"], system="second")
    (pair,) = compare(first, second).pairs
    assert (pair.wins, pair.losses, pair.ties) == (2, 1, 1)
    assert [(change.utterance_id, change.errors, change.change) for change in pair.changes] == [
        ("w", (0, 3), 3),
        ("x", (3, 0), -3),
        ("z", (1, 2), 1),
    ]


def test_the_order_of_the_second_systems_utterances_does_not_matter():
    references = spoken(40)
    texts = recognised(references, 0.2, 3)
    one = system("one", references, 0.1)
    straight = score(references, texts, system="other", samples=50)
    turned = score(references[::-1], texts[::-1], system="other", samples=50)
    assert compare(one, straight).pairs == compare(one, turned).pairs


def test_several_systems_are_corrected_and_the_comparison_says_so():
    references = spoken(80)
    comparison = compare(*(system(f"s{n}", references, rate, n) for n, rate in enumerate((0.05, 0.1, 0.1, 0.3))))
    assert len(comparison.pairs) == 6
    assert comparison.correction == "p-values corrected for 6 comparisons by Holm's method"
    assert all(pair.adjusted_p >= pair.p for pair in comparison.pairs)
    assert comparison.pairs[2].better == "s0"
    assert comparison.verdict.count("\n") == 5


def test_what_the_correction_takes_away_is_not_shown_as_a_difference():
    references = spoken(60)
    comparison = compare(*(system(f"s{n}", references, rate, 28 + n) for n, rate in enumerate((0.1, 0.14, 0.1))))
    assert any(pair.p < SIGNIFICANT_P <= pair.adjusted_p for pair in comparison.pairs)
    assert [pair.better is None for pair in comparison.pairs] == [
        pair.adjusted_p >= SIGNIFICANT_P for pair in comparison.pairs
    ]
    shown = re.findall(r"<td>([^<]*)</td><td>[^<]*</td></tr>", comparison._repr_html_())
    assert shown == [f"{pair.adjusted_p:.2g}" for pair in comparison.pairs]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]


def test_other_utterances_normalisers_references_and_costs_are_refused_with_the_whole_list():
    references = spoken(5)
    one = system("one", references, 0.1)
    with pytest.raises(ManifestProblems) as raised:
        compare(
            one,
            system("short", references[:-2], 0.1),
            system("plain", references, 0.1, normalizer="none"),
            system("nist", references, 0.1, costs="sclite"),
        )
    assert raised.value.problems == (
        "short: utterance u3 is missing",
        "short: utterance u4 is missing",
        "plain: normalizer none-1, the first system's is basic-1; score both alike",
        "nist: costs sclite, the first system's is equal; score both alike",
    )
    other = [Reference("u0", "something else"), *references[1:], Reference("new", "a")]
    with pytest.raises(ManifestProblems) as raised:
        compare(one, system("other", other, 0.0))
    assert raised.value.problems == (
        "other: utterance new is not in the first system's test set",
        "other: the reference of utterance u0 differs from the first system's",
    )


def test_a_notebook_shows_escaped_names_and_the_verdict():
    references = spoken(10)
    shown = compare(system("<b>one</b>", references, 0.1), system("other", references, 0.1))._repr_html_()
    assert "&lt;b&gt;one" in shown and "<b>" not in shown and "No difference shown" in shown
    assert "&lt;i&gt;" in system("<i>", references, 0.1)._repr_html_()
