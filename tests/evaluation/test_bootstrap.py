"""Bootstrap intervals: the published procedure, bounded memory, one result for one seed."""

import numpy as np
import pytest

from asr_service.evaluation.bootstrap import resampled_sums, wer_interval


def made_up(utterances, seed=1):
    generator = np.random.default_rng(seed)
    words = generator.integers(1, 30, utterances)
    return generator.binomial(words, 0.1), words


def test_agrees_with_the_bootstrap_drawn_utterance_by_utterance():
    errors, words = made_up(300)
    draws = np.random.default_rng(7).integers(0, 300, (10_000, 300))
    plain = np.quantile(errors[draws].sum(1) / words[draws].sum(1), [0.025, 0.975])
    ours = wer_interval(errors, words, [""] * 300, samples=10_000)
    assert (ours.low, ours.high) == pytest.approx(plain, abs=6e-4)  # of an interval 0.017 wide


def test_the_interval_holds_the_rate_is_repeatable_and_narrows_with_data():
    errors, words = [i % 4 for i in range(40)], [10] * 40
    interval = wer_interval(errors, words, [""] * 40)
    assert interval.low < sum(errors) / sum(words) < interval.high
    assert wer_interval(errors, words, [""] * 40) == interval
    wide = wer_interval(errors[:8], words[:8], [""] * 8)
    assert wide.high - wide.low > interval.high - interval.low


def test_speakers_are_drawn_where_twenty_are_known_and_give_a_wider_interval_when_they_differ():
    generator = np.random.default_rng(3)
    difficulty = generator.uniform(0.01, 0.4, 20)
    speakers = np.repeat(np.arange(20), 50)
    words = np.full(1000, 10)
    errors = generator.binomial(words, difficulty[speakers])
    by_speaker = wer_interval(errors, words, [f"speaker {n}" for n in speakers])
    by_utterance = wer_interval(errors, words, [f"speaker {n % 19}" for n in speakers])
    assert (by_speaker.over, by_utterance.over) == ("speakers", "utterances")
    assert by_speaker.high - by_speaker.low > 3 * (by_utterance.high - by_utterance.low)


def test_one_unknown_speaker_is_enough_to_draw_utterances():
    errors, words = made_up(30)
    assert wer_interval(errors, words, [str(n) for n in range(30)]).over == "speakers"
    assert wer_interval(errors, words, ["", *(str(n) for n in range(29))]).over == "utterances"


def test_the_result_depends_on_the_seed_alone_not_on_blocks_or_order():
    errors, words = made_up(500)
    units = np.column_stack([errors, words])
    whole = np.concatenate(list(resampled_sums(units, samples=101, seed=5)))
    pieces = np.concatenate(list(resampled_sums(units[::-1], samples=101, seed=5, block_values=1000)))
    assert whole.shape == (101, 2)
    np.testing.assert_array_equal(whole, pieces)
    assert not np.array_equal(whole, np.concatenate(list(resampled_sums(units, samples=101, seed=6))))


def test_blocks_bound_what_is_drawn_at_once():
    units = np.column_stack([np.arange(1000), np.arange(1000) + 1])
    assert {len(block) for block in resampled_sums(units, samples=7, seed=0, block_values=3000)} == {3, 1}


def test_every_sample_draws_as_many_units_as_there_are():
    errors, words = made_up(200)
    units = np.column_stack([errors, words, np.ones(200, dtype=int)])
    assert all((block[:, 2] == 200).all() for block in resampled_sums(units, samples=50, seed=0))


def test_one_utterance_has_no_interval():
    alone = wer_interval([1], [4], ["s"])
    assert (alone.exists, alone.over, alone.low, alone.high) == (False, "nothing", 0.25, 0.25)
    assert not wer_interval([], [], []).exists and wer_interval([1, 0], [4, 4], ["", ""]).exists


def test_nothing_to_draw_gives_zero_and_insertions_alone_stay_finite():
    empty = wer_interval([], [], [])
    assert (empty.low, empty.high) == (0.0, 0.0)
    assert np.isfinite(wer_interval([2, 1], [0, 0], ["", ""]).high)


@pytest.mark.parametrize("bad", [{"level": 1.0}, {"level": 0.0}, {"samples": 0}])
def test_level_and_samples_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        wer_interval([1], [2], ["a"], **bad)


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="2 words"):
        wer_interval([1], [2, 3], ["a"])
