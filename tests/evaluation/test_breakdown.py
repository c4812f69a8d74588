"""Breakdowns, confusions, unknown words and calibration, by hand."""

import dataclasses

import numpy as np
import pytest

from asr_service.evaluation.breakdown import MAX_GROUPS, breakdown, breakdowns, fields
from asr_service.evaluation.calibration import calibration
from asr_service.evaluation.confusions import Confusion, confusions, out_of_vocabulary
from asr_service.evaluation.output import Output, Timing
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.scoring import score
from asr_service.types import Word
from tests.evaluation.made_up import evaluation


def groups(evaluation, field):
    return {group.name: group for group in breakdown(evaluation, field).groups}


def test_the_groups_of_every_field_are_the_whole_evaluation():
    one = evaluation(120)
    assert fields(one) == ["corpus", "speaker", "duration", "speaking rate", "microphone", "take"]
    for part in breakdowns(one):
        assert sum(group.utterances for group in part.groups) == 120
        assert sum(group.words.errors for group in part.groups) == one.words.errors
        assert sum(group.words.reference_words for group in part.groups) == one.words.reference_words
        assert all(group.interval.low <= group.wer <= group.interval.high for group in part.groups)


def test_bins_by_duration_and_speaking_rate_by_hand():
    references = [
        Reference("a", "one two three", duration_s=1.0),
        Reference("b", "one two three", duration_s=2.0),
        Reference("c", "one two three", duration_s=31.0),
        Reference("d", "one two three"),
    ]
    one = score(references, ["one", "one two", "one two three", ""])
    assert {name: group.words.errors for name, group in groups(one, "duration").items()} == {
        "under 2 s": 2,
        "2 to 5 s": 1,
        "from 30 s": 0,
        "unknown": 3,
    }
    assert list(groups(one, "speaking rate")) == [
        "under 1.5 words/s",
        "1.5 to 2 words/s",
        "3 to 3.5 words/s",
        "unknown",
    ]


def test_the_speaking_rate_is_of_the_reference_and_the_length_of_the_manifest():
    reference = Reference("a", "one two", duration_s=1.0)
    one = score([reference], [Output("a", "one two three four", timing=Timing(0.1, audio_s=40.0))])
    assert list(groups(one, "speaking rate")) == ["2 to 2.5 words/s"]
    assert list(groups(one, "duration")) == ["under 2 s"]
    one = score([Reference("a", "one two")], [Output("a", "one two", timing=Timing(0.1, audio_s=40.0))])
    assert list(groups(one, "duration")) == ["from 30 s"]


def test_intervals_of_groups_are_over_their_speakers_where_there_are_enough():
    references = [Reference(str(n), "a b", speaker=f"s{n % 40}", fields={"room": n % 2}) for n in range(80)]
    for group in breakdown(score(references, ["a b"] * 80), "room", samples=150).groups:
        assert (group.interval.over, group.interval.samples) == ("speakers", 150)


def test_a_field_with_few_numbers_keeps_them_and_one_with_many_is_cut_into_fifths():
    references = [Reference(str(n), "a b", fields={"take": n % 3, "level": float(n), "ok": n > 5}) for n in range(50)]
    one = score(references, ["a b"] * 50)
    assert set(groups(one, "take")) == {"0", "1", "2"}
    assert [group.utterances for group in breakdown(one, "level").groups] == [10] * 5
    assert set(groups(one, "ok")) == {"True", "False"}


@pytest.mark.parametrize(("first", "step"), [(1_700_000_000, 10), (3.0, 2.0**-50)])
def test_fifths_whose_edges_are_close_together_have_names_of_their_own(first, step):
    references = [Reference(str(n), "a b", fields={"recorded_at": first + step * n}) for n in range(100)]
    found = breakdown(score(references, ["a b"] * 100), "recorded_at").groups
    assert sum(group.utterances for group in found) == 100
    assert len({group.name for group in found}) == 5


def test_edges_have_as_many_digits_as_tell_them_apart():
    time_s = 1_700_000_000
    fields = [{"at": time_s + 10 * n, "day": time_s + 86_400 * n, "score": n / 7} for n in range(101)]
    one = score([Reference(str(n), "a b", fields=known) for n, known in enumerate(fields)], ["a b"] * 101)
    assert list(groups(one, "at"))[1] == "1700000200 to 1700000400"
    assert list(groups(one, "day"))[1] == "1701728000 to 1703456000"
    assert list(groups(one, "score"))[1] == "2.85714 to 5.71429"


def test_too_many_names_become_one_group_of_others():
    references = [Reference(str(n), "a " * (200 - n), speaker=f"s{n}") for n in range(100)]
    found = breakdown(score(references, ["a"] * 100), "speaker").groups
    assert len(found) == MAX_GROUPS
    assert found[0].name == "s0"
    assert (found[-1].name, found[-1].utterances) == (f"{100 - MAX_GROUPS + 1} others", 100 - MAX_GROUPS + 1)


def test_fields_that_do_not_differ_or_are_unique_are_no_breakdown():
    references = [Reference(str(n), "a", corpus="one", fields={"path": f"p{n}"}) for n in range(9)]
    assert breakdowns(score(references, ["a"] * 9)) == ()


def test_confusions_by_hand():
    one = score(["a b c", "a b c", "b x"], ["a d", "a d c", "b x uh"])
    found = confusions(one)
    assert found.substitutions == (Confusion("b", "d", 2),)
    assert found.deletions == (Confusion("c", "", 1),)
    assert found.insertions == (Confusion("", "uh", 1),)
    assert confusions(one, top=0).substitutions == ()


def test_out_of_vocabulary_by_hand():
    found = out_of_vocabulary(score(["THE ebionites OF zog", "zog"], ["the e b night of zog", ""]), {"the", "of"})
    assert (found.words, found.errors, found.known_words, found.known_errors) == (3, 2, 2, 0)
    assert found.frequent == (("zog", 2), ("ebionites", 1))
    assert (found.share, found.error_rate, found.known_error_rate) == (0.6, pytest.approx(2 / 3), 0.0)


def test_words_are_known_also_where_the_normaliser_writes_them_in_capitals():
    scored = score(["the zog"], ["the zog"], normalizer="librispeech")
    assert out_of_vocabulary(scored, {"the", "of"}).frequent == (("ZOG", 1),)


def judged(pairs):
    """An evaluation whose words have these (right?, confidence)."""
    words = tuple(Word("yes" if right else "no", 0.0, 0.1, confidence) for right, confidence in pairs)
    output = Output("u", " ".join(word.text for word in words), words)
    return score([Reference("u", " ".join(["yes"] * len(pairs)))], [output])


def test_calibration_by_hand():
    found = calibration(judged([(True, 0.9), (False, 0.3), (True, 0.7), (False, 0.7)]), bins=2)
    assert [(b.words, b.confidence, b.accuracy) for b in found.bins] == [
        (2, pytest.approx(0.5), 0.5),
        (2, pytest.approx(0.8), 0.5),
    ]
    assert found.ece == pytest.approx(0.15)
    assert found.auc == pytest.approx(3.5 / 4)


def test_auc_is_the_share_of_pairs_in_the_right_order():
    draw = np.random.default_rng(0)
    truth = draw.random(500) < 0.7
    values = np.round(np.where(truth, draw.beta(5, 2, 500), draw.beta(2, 2, 500)), 2)
    found = calibration(judged(list(zip(truth.tolist(), values.tolist(), strict=True))))
    difference = values[truth][:, None] - values[~truth][None, :]
    assert found.auc == pytest.approx(((difference > 0) + 0.5 * (difference == 0)).mean())
    assert len(found.bins) == 15 and sum(b.words for b in found.bins) == 500


def test_words_that_normalisation_splits_are_left_out_and_counted():
    one = score(
        [Reference("u", "well known fact")], [Output("u", "well-known fact", (Word("well-known", 0, 1, 0.9),) * 2)]
    )
    assert calibration(one) is None
    other = evaluation(10)
    assert calibration(other).left_out == 0
    row = one.utterances[0]
    both = dataclasses.replace(other, utterances=(*other.utterances, row))
    assert calibration(both).left_out == 2


def test_without_wrong_words_there_is_no_auc_and_without_confidences_nothing():
    assert calibration(judged([(True, 0.5)])).auc is None
    assert calibration(score(["a"], ["a"])) is None
