"""Speed and latency of a test set, by hand; the estimate of the signal-to-noise ratio on made-up noise."""

import dataclasses

import numpy as np
import pytest

from asr_service.evaluation.latency_summary import Percentiles, latency_summary, percentiles
from asr_service.evaluation.output import Output, Timing
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.scoring import score
from asr_service.evaluation.snr import estimate_snr_db


def timed(*timings):
    references = [Reference(str(n), "a", duration_s=4.0) for n in range(len(timings))]
    return score(references, [Output(str(n), "a", timing=timing) for n, timing in enumerate(timings)]).utterances


def test_summary_by_hand():
    summary = latency_summary(
        timed(
            Timing(1.0, audio_s=10.0, first_partial_s=0.5, final_s=-0.1, word_latencies_s=(0.1, 0.2), emitted_words=8),
            Timing(0.5, word_latencies_s=(0.6,), emitted_words=2, revoked_words=1, uncovered_s=(3.5, 2.1)),
            Timing(None, audio_s=6.0),
            None,
        )
    )
    assert (summary.utterances, summary.audio_s, summary.processing_s) == (3, 14.0, 1.5)
    assert summary.rtfx == pytest.approx(14 / 1.5)
    assert summary.word == Percentiles(0.2, pytest.approx(0.52), pytest.approx(0.56), 3)
    assert summary.first_partial == Percentiles(0.5, 0.5, 0.5, 1)
    assert summary.final.p50 == -0.1
    assert summary.unaware_word is None
    assert (summary.emitted_words, summary.revoked_words, summary.revoked_share) == (10, 1, 0.1)
    assert (summary.gaps, summary.gap_s, summary.gap_share) == (2, pytest.approx(5.6), pytest.approx(0.28))


def test_each_latency_has_its_own_place_and_one_of_zero_counts():
    summary = latency_summary(
        timed(
            Timing(
                0.0,
                first_partial_s=0.0,
                final_s=0.2,
                unaware_first_partial_s=0.3,
                unaware_final_s=0.4,
                word_latencies_s=(0.5,),
                unaware_word_latencies_s=(0.6,),
            )
        )
    )
    names = ("utterance_s", "first_partial", "final", "unaware_first_partial", "unaware_final", "word", "unaware_word")
    assert [getattr(summary, name) for name in names] == [
        Percentiles(value, value, value, 1) for value in (0.0, 0.0, 0.2, 0.3, 0.4, 0.5, 0.6)
    ]


def test_nothing_timed_no_summary():
    assert latency_summary(timed(None)) is None
    assert percentiles([]) is None
    empty = latency_summary(timed(Timing(None)))
    assert (empty.rtfx, empty.revoked_share, empty.utterance_s) == (None, None, None)
    assert all(value is not float("nan") for value in dataclasses.asdict(empty).values())


@pytest.mark.parametrize("wanted_db", [5, 15, 30])
def test_estimate_is_near_the_truth_for_bursts_in_steady_noise(wanted_db):
    draw = np.random.default_rng(1)
    noise = draw.normal(0, 0.01, 16000 * 8)
    bursts = draw.normal(0, 0.01 * 10 ** (wanted_db / 20), 16000 * 8)
    bursts.reshape(8, 16000)[1::2] = 0
    assert estimate_snr_db((noise + bursts).astype(np.float32)) == pytest.approx(wanted_db, abs=2.0)


def test_silence_and_snippets_have_no_estimate():
    assert estimate_snr_db(np.zeros(16000, dtype=np.float32)) is None
    assert estimate_snr_db(np.ones(7000, dtype=np.float32)) is None
