"""The generator against a real server whose engine hears tones: everything it counts is known beforehand."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from asr_service.bench import generator
from asr_service.bench.figures import figures
from asr_service.bench.generator import Load, play_alone, run_load, stream_calls
from asr_service.bench.heard import heard
from asr_service.config import ServerSettings, Settings
from asr_service.connection import Connection
from asr_service.server.app import ServerThread
from tests.bench.made_up import tone_clip
from tests.fake_engine import FakeEngine

CLIPS = [tone_clip("one", 1, 0.16, 2), tone_clip("two", 3, 0.16, 4)]
# Three streams at a server of two: two clips each, a pause between them that ends the utterance.
LOAD = Load(streams=3, seconds=2.0, message_s=0.1, channels=2, pause_s=0.96, stagger_s=0.1)


@pytest.fixture(scope="module")
def address():
    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0, grace_s=2.0))
    with ServerThread(settings, lambda: FakeEngine(max_streams=2)) as address:
        yield address


@pytest.fixture(scope="module")
def loaded(address):
    return asyncio.run(run_load(Connection(address), CLIPS, LOAD))


def test_streams_that_have_a_place_are_held_and_the_others_are_refused(loaded):
    found = figures(loaded)
    assert (found.held, found.refused, found.failed) == (2, 1, {})
    told = sorted((call.status, call.reason) for call in loaded.calls)
    assert told == [("OK", ""), ("OK", ""), ("RESOURCE_EXHAUSTED", "NO_CAPACITY")]


def test_every_clip_that_was_played_is_heard_in_its_place(loaded):
    for call in loaded.calls:
        if call.status == "OK":
            assert [clip.text for clip in heard(call)] == [played.clip.reference.text for played in call.call.clips]
    quality = figures(loaded).quality
    assert quality is not None and quality.errors == 0 and quality.clips == 4


def test_audio_goes_out_at_the_pace_of_speech(loaded):
    for call in loaded.calls:
        if call.status == "OK":
            assert call.finals[-1].shown_s >= call.call.duration_s  # its last word was not there before it was said
            assert min(word.latency_s for clip in heard(call) for word in clip.words) > -0.32
    messages = {record.stream: len(list(record.call.messages(LOAD.message_s))) for record in loaded.calls}
    held = sum(messages[record.stream] for record in loaded.calls if record.status == "OK")
    # Of the refused stream some may have left.
    assert held <= loaded.pace.messages <= sum(messages[record.stream] for record in loaded.calls)
    assert loaded.pace.late_s


def test_a_pause_ends_an_utterance_and_its_final_is_told_apart_from_that_of_the_half_close(loaded):
    found = figures(loaded)
    assert found.final_after_close is not None and found.final_after_close.count == 2
    assert found.final is not None and found.final.p50 >= 0.8  # the endpoint's silence is in it


def test_the_generator_says_what_it_costs_itself(loaded):
    assert 0 < loaded.generator_cpu_s < 10
    cost = figures(loaded).generator_cpu_per_audio_s
    assert cost == pytest.approx(loaded.generator_cpu_s / sum(call.sent_s for call in loaded.calls))
    for call in loaded.calls:
        if call.status == "OK":
            assert call.sent_s == pytest.approx(call.call.duration_s)
        else:
            assert call.sent_s < call.call.duration_s


def test_calls_of_a_stream_follow_one_another_with_a_pause_up_to_the_first_that_is_refused(address):
    load = Load(streams=3, seconds=2.5, message_s=0.1, pause_s=0.3, clips_per_call=1, stagger_s=0.1)
    calls = asyncio.run(run_load(Connection(address), CLIPS, load)).calls
    streams = [[call for call in calls if call.stream == stream] for stream in range(3)]
    assert sorted(stream[0].status for stream in streams) == ["OK", "OK", "RESOURCE_EXHAUSTED"]
    assert all((len(stream) > 1) == (stream[0].status == "OK") for stream in streams)
    for first, second in (pair for stream in streams for pair in itertools.pairwise(stream)):
        begun_s, over_s = second.begun_s, first.begun_s + first.call.duration_s
        assert round(begun_s - over_s, 9) >= 0.3  # differences of a large clock are not exact


def test_a_record_is_not_spelled_out(loaded):
    # asyncio.run makes a repr of what it returns, and one of all audio takes longer than the load.
    assert len(repr(loaded)) < 200 and len(repr(loaded.calls[0])) < 200


def test_calls_alone_give_the_same_words(address, loaded):
    calls = [(stream, call) for stream in range(2) for call in stream_calls(CLIPS, LOAD, stream)]

    async def play():
        return [record async for record in play_alone(Connection(address), calls, LOAD.message_s)]

    alone = asyncio.run(play())
    assert [record.status for record in alone] == ["OK", "OK"]
    held = {call.stream for call in loaded.calls if call.status == "OK"}
    for record in alone:
        if record.stream in held:
            (under_load,) = [call for call in loaded.calls if call.stream == record.stream]
            assert [clip.text for clip in heard(record)] == [clip.text for clip in heard(under_load)]


def test_a_call_that_does_not_end_is_given_up(monkeypatch):
    monkeypatch.setattr(generator, "PATIENCE_S", 0.1)
    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0, grace_s=0.0))
    engine = FakeEngine()
    engine.gate.clear()
    with ServerThread(settings, lambda: engine) as address:
        record = asyncio.run(run_load(Connection(address), CLIPS, Load(streams=1, seconds=0.5, stagger_s=0.0)))
    assert figures(record).failed == {"GIVEN_UP": 1}


def test_a_server_that_is_not_there_is_a_status_and_no_exception():
    record = asyncio.run(run_load(Connection("localhost:9"), CLIPS, Load(streams=1, seconds=0.5, stagger_s=0.0)))
    assert figures(record).failed == {"UNAVAILABLE": 1}
