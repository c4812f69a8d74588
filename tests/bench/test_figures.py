"""Figures of a load: counted from what its streams were answered, and invalid where the generator was late."""

from __future__ import annotations

import dataclasses

import pytest

from asr_service.bench.figures import figures, percentiles, slope
from asr_service.bench.generator import Load, LoadRecord
from asr_service.bench.pacing import PaceLog
from asr_service.bench.process_usage import Usage
from tests.bench.made_up import call_of, final, interim, record, text_clip

CAT = text_clip("cat", ("the", 0.2, 0.4), ("cat", 0.5, 0.9), ("sat", 1.0, 1.5))
OTHER_CAT = text_clip("other cat", *CAT.words)
RIGHT = final(("the", 0.2, 0.4), ("cat", 0.5, 0.9), ("sat", 1.0, 1.5))
WRONG = final(("the", 0.2, 0.4), ("bat", 0.5, 0.9), ("sat", 1.0, 1.5))
LOAD = Load(streams=2, seconds=10.0, stagger_s=0.0)


def punctual() -> PaceLog:
    return PaceLog(late_s=[0.001] * 100, messages=100)


def load_record(*calls, load=LOAD, pace=None, usage=()) -> LoadRecord:
    return LoadRecord(load, calls, pace or punctual(), usage)


def two_streams(answer, shown_s=2.2):
    return [record(call_of(CAT), (shown_s, answer), stream=stream) for stream in range(2)]


def test_latencies_errors_and_revoked_words_are_counted_over_all_streams():
    one = record(call_of(CAT), (0.6, interim("the")), (1.1, interim("the bat")), (2.2, RIGHT))
    two = record(call_of(OTHER_CAT), (2.2, WRONG), stream=1)
    found = figures(load_record(one, two))
    assert (found.streams, found.held, found.refused, found.failed) == (2, 2, 0, {})
    assert found.word is not None and found.word.count == 5
    assert max(found.word_quantiles) == pytest.approx(1.8) and min(found.word_quantiles) == pytest.approx(0.2)
    assert (found.emitted_words, found.revoked_words) == (7, 1)
    assert found.quality is not None
    assert (found.quality.errors, found.quality.reference_words, found.quality.clips) == (1, 6, 2)
    assert found.quality.normalizer == "basic-1"
    assert found.quality.low is not None and found.quality.high is not None
    assert found.quality.low <= found.quality.wer <= found.quality.high
    assert found.final_after_close is not None and found.final_after_close.p50 == pytest.approx(0.2)


def test_a_final_is_timed_from_its_endpoint_and_from_the_silence_that_was_asked_for():
    # The last word ends at 1.5 s; the endpoint, at 2.34 s, is in the message that ends at 2.4 s.
    cat = ("the", 0.2, 0.4), ("cat", 0.5, 0.9), ("sat", 1.0, 1.5)
    later = tuple((text, 3.0 + start_s, 3.0 + end_s) for text, start_s, end_s in cat)
    first, last = final(*cat, endpoint_s=2.34), final(*later, utterance=1, endpoint_s=5.0)
    call = record(call_of(CAT, CAT), (2.45, first), (5.2, last))
    found = figures(load_record(call, load=dataclasses.replace(LOAD, streams=1)))
    assert found.final_after_endpoint is not None and found.final_after_endpoint.count == 1
    assert found.final_after_endpoint.p50 == pytest.approx(0.05)
    assert found.final_after_silence is not None and found.final_after_silence.p50 == pytest.approx(2.45 - 1.5 - 0.8)
    assert found.final_after_close is not None and found.final_after_close.p50 == pytest.approx(0.2)


def test_only_what_was_said_while_all_streams_ran_has_a_latency():
    calls = [record(call_of(CAT), (2.2, RIGHT), begun_s=9.0)]
    found = figures(load_record(*calls, load=dataclasses.replace(LOAD, streams=1, stagger_s=9.6)))
    assert found.word is not None and found.word.count == 1  # "cat" at 9.9; "the" came before, "sat" after
    assert found.quality is not None and found.quality.reference_words == 3


def test_utterances_cut_at_short_pauses_are_counted():
    slow = text_clip("slow", ("the", 0.2, 0.4), ("cat", 0.9, 1.1), ("sat", 1.2, 1.5))
    answers = [(1.0, ("the", 0.2, 0.4)), (1.6, ("cat", 0.9, 1.1)), (2.1, ("sat", 1.2, 1.5))]
    call = record(call_of(slow), *((time_s, final(word, utterance=n)) for n, (time_s, word) in enumerate(answers)))
    found = figures(load_record(call, load=dataclasses.replace(LOAD, streams=1)))
    assert (found.utterances, found.short_splits) == (3, 1)


def test_streams_that_were_refused_or_failed_are_counted_and_their_words_are_not():
    held = record(call_of(CAT), (2.2, RIGHT), stream=0)
    refused, cut = record(call_of(CAT), stream=1), record(call_of(CAT), (2.2, WRONG), stream=2)
    slow = record(call_of(CAT), (2.2, WRONG), stream=3)
    refused.status, refused.reason, cut.status = "RESOURCE_EXHAUSTED", "NO_CAPACITY", "INTERNAL"
    slow.status, slow.reason = "RESOURCE_EXHAUSTED", "SLOW_CONSUMER"  # it had a place
    found = figures(load_record(held, refused, cut, slow, load=dataclasses.replace(LOAD, streams=4)))
    assert (found.held, found.refused, found.failed) == (1, 1, {"INTERNAL": 1, "RESOURCE_EXHAUSTED": 1})
    assert found.quality is not None and found.quality.errors == 0


def test_errors_are_compared_with_the_same_calls_alone():
    found = figures(load_record(*two_streams(WRONG)), alone=two_streams(RIGHT))
    assert found.quality is not None
    assert (found.quality.alone_wer, found.quality.changed) == (0.0, 2)
    assert found.quality.worse_by == pytest.approx(100 / 3)


def test_a_load_whose_generator_was_late_is_invalid():
    late = PaceLog(late_s=[0.001] * 98 + [0.2] * 2, messages=100)
    assert figures(load_record(*two_streams(RIGHT))).valid
    assert not figures(load_record(*two_streams(RIGHT), pace=late)).valid


def test_a_server_that_reads_late_leaves_the_load_valid():
    held = PaceLog(late_s=[0.001] * 100, held_s=[3.0] * 100, messages=200)
    found = figures(load_record(*two_streams(RIGHT), pace=held))
    assert found.valid and found.server_held is not None and found.server_held.p50 == 3.0


def test_cpu_is_told_for_each_second_of_audio_of_a_stream():
    usage = tuple((float(second), Usage(5.0 + 0.3 * second, (100 + second) << 20)) for second in range(10))
    found = figures(load_record(*two_streams(RIGHT), usage=usage))
    assert found.cost is not None
    assert found.cost.cpu_per_audio_s == pytest.approx(0.3 * 9 / (2 * CAT.duration_s))
    assert (found.cost.resident_mib, found.cost.most_resident_mib) == (100, 109)


def test_cpu_is_shared_out_among_all_audio_that_was_sent_also_by_streams_that_failed():
    calls = [record(call_of(CAT), (2.2, RIGHT), stream=stream) for stream in range(4)]
    for call in calls[1:]:
        call.status, call.sent_s = "UNAVAILABLE", 1.5
    used = ((0.0, Usage(1.0, 1 << 30)), (10.0, Usage(1.65, 1 << 30)))
    load = dataclasses.replace(LOAD, streams=4)
    found = figures(LoadRecord(load, tuple(calls), punctual(), used, generator_cpu_s=0.065))
    assert found.cost is not None and found.cost.cpu_per_audio_s == pytest.approx(0.65 / (2.0 + 3 * 1.5))
    assert found.generator_cpu_per_audio_s == pytest.approx(0.065 / (2.0 + 3 * 1.5))


def test_repetitions_of_a_clip_make_no_rate_surer():
    words = [(text, 0.1 + 0.15 * place, 0.2 + 0.15 * place) for place, text in enumerate("abcdefghij")]
    clips = [text_clip(f"clip-{number}", *words) for number in range(10)]
    answers = [final(*(("z", 0.0, 0.1),) * (number % 4), *words[number % 4 :]) for number in range(10)]

    def found(streams):
        calls = [
            record(call_of(clip), (2.2, answer), stream=stream)
            for stream in range(streams)
            for clip, answer in zip(clips, answers, strict=True)
        ]
        quality = figures(load_record(*calls, load=dataclasses.replace(LOAD, streams=streams))).quality
        assert quality is not None and (quality.clips, quality.different) == (10 * streams, 10)
        return quality.wer, quality.low, quality.high, quality.over

    once = found(1)
    assert once[1] < once[0] < once[2] and once[3] == "utterances"
    assert found(32) == once


def test_speakers_are_drawn_where_there_are_enough_of_them():
    clips = [
        dataclasses.replace(CAT, reference=dataclasses.replace(CAT.reference, utterance_id=name, speaker=name[1:]))
        for name in (f"{part}{speaker}" for speaker in range(20) for part in "ab")
    ]
    quality = figures(load_record(*(record(call_of(clip), (2.2, RIGHT)) for clip in clips))).quality
    assert quality is not None and quality.over == "speakers"


def test_one_clip_has_no_interval_however_often_it_was_played():
    quality = figures(load_record(*two_streams(WRONG))).quality
    assert quality is not None and (quality.low, quality.high, quality.over) == (None, None, "nothing")


def test_where_nobody_speaks_there_is_no_word_error_rate():
    call = record(call_of(text_clip("noise")), (1.0, final(("uh", 0.2, 0.4))))
    assert figures(load_record(call), alone=[call]).quality is None


def test_connections_are_those_that_were_opened():
    many = dataclasses.replace(LOAD, channels=16)
    assert figures(load_record(*two_streams(RIGHT), load=many)).channels == 2
    assert figures(load_record(*two_streams(RIGHT))).channels == 1


def test_without_any_answer_there_are_no_figures_rather_than_zeros():
    found = figures(load_record(*(record(call_of(CAT), stream=stream) for stream in range(2))))
    assert (found.word, found.first_partial, found.slope, found.cost) == (None, None, None, None)
    assert found.quality is not None and found.quality.wer == 1.0


def test_a_slope_is_found_with_its_error_and_none_where_there_is_no_line():
    line = slope([(float(x), 0.5 + 0.01 * x) for x in range(50)])
    assert line is not None and line.per_s == pytest.approx(0.01) and line.error == pytest.approx(0, abs=1e-9)
    noisy = slope([(float(x), 0.5 + (-1) ** x) for x in range(50)])
    assert noisy is not None and abs(noisy.per_s) < 2 * noisy.error
    steep = slope([(0.0, 0.0), (1.0, 0.0), (2.0, 3.0)])
    assert steep is not None and (steep.per_s, steep.error) == pytest.approx((1.5, 0.75**0.5))
    assert slope([(1.0, 0.5)] * 5) is None
    assert slope([]) is None


def test_percentiles_leave_out_what_is_unknown():
    found = percentiles([None, 1.0, 2.0, 3.0])
    assert found is not None and (found.p50, found.count) == (2.0, 3)
    assert percentiles([None]) is None
